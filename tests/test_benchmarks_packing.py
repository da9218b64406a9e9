"""The packing benchmark at its smallest: what it runs, writes and refuses; its figures are nobody's assertion."""
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from preprocess.images.normalize import normalize

ROOT = Path(__file__).parent.parent
PACKING = "benchmarks/packing.py"
PEERS = ROOT / "benchmarks" / "peers"


@pytest.fixture(scope="session")
def work(tmp_path_factory) -> Path:
    """A work folder that keeps its photos for the next test."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture
def listing(work, module, tmp_path) -> tuple[Path, list[Path]]:
    """Five photos, and the file that lists them to a runner."""
    photos = module("packing_contests").make_photos(work, 5, workers=1)
    (tmp_path / "list.txt").write_text("".join(f"{photo}\n" for photo in photos))
    return tmp_path / "list.txt", photos


def test_each_round_has_every_contender_and_the_report_their_ratios(call, work, tmp_path):
    done = call(PACKING, "--work", work, "--photos", 70, "--rounds", 2, "--workers", 1, "--against", "gray_check",
                "tar", "--json", tmp_path / "p.json")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "p.json").read_text())
    assert report["settings"] == {"workers": 1, "photos": {"check": 70, "copy": 70}}
    assert "cores" in report["machine"] and "tar" in report["peers"]
    for figures in report["rounds"]:
        assert {name: set(of) for name, of in figures.items()} == {
            "check": {"arcshard", "arcshard_small", "gray_check"}, "copy": {"arcshard", "arcshard_small", "tar"}}
        assert all(seconds > 0 for of in figures.values() for seconds in of.values())
    assert done.stdout.count("times as fast, goal") == 2 and "n = 2" in done.stdout


def test_a_ratio_is_of_packing_without_the_start_and_of_one_round(module):
    contest = module("packing_contests").CONTESTS[1]
    names = ("arcshard_small", "arcshard", "tar")
    rounds = [dict(zip(names, seconds)) for seconds in ((1.0, 3.0, 1.0), (1.2, 5.0, 3.0), (1.0, 2.0, 0.9))]
    title, ours, with_start, tar = module("packing").contest_lines(contest, rounds, 164)
    assert title == "copy, 164 photos"
    assert ours.split() == "arcshard 50 (25 to 100, n = 3) photos/s".split()
    assert with_start.split() == "55 (33 to 82, n = 3) photos/s with its start of 1.0 s".split()
    assert "tar          164 (55 to 182, n = 3) photos/s" in tar
    assert tar.endswith("arcshard is 0.46 (0.30 to 0.55, n = 3) times as fast, goal 0.75")


def test_photos_are_in_normal_form_and_the_same_whenever_they_are_made(module, tmp_path):
    make_photos = module("packing_contests").make_photos
    paths = make_photos(tmp_path, 40, workers=1)
    before = [path.read_bytes() for path in paths]
    assert all(normalize(data, None, 50) == (data, 800, 600) for data in before)
    assert 60_000 < sum(map(len, before)) / 40 < 85_000 and len(set(before)) == 40
    paths[7].unlink()
    paths[8].write_bytes(b"kept")
    assert make_photos(tmp_path, 40, workers=1) == paths
    assert paths[7].read_bytes() == before[7] and paths[8].read_bytes() == b"kept"


def test_a_damaged_photo_stops_the_contest(call, refused, listing, work):
    whole = listing[1][1].read_bytes()
    listing[1][1].write_bytes(whole[:-2000])
    done = call(PACKING, "--work", work, "--photos", 65, "--workers", 1, "--rounds", 1, "--against", "gray_check")
    listing[1][1].write_bytes(whole)
    assert done.returncode == 2 and "only 63 of 64 photos were packed: see " in done.stderr


def test_the_cheapest_check_decodes_every_photo_and_stops_at_a_damaged_one(listing, tmp_path):
    file, photos = listing
    assert seconds_of("gray_check.py", file, tmp_path / "whole").returncode == 0
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(photos[0].read_bytes()[:-2000])
    file.write_text(f"{photos[1]}\n{damaged}\n")
    done = seconds_of("gray_check.py", file, tmp_path / "not")
    assert done.returncode and "a process of __main__ failed" in done.stderr


@pytest.mark.parametrize("options, size", [([], (800, 600)), (["--short-side", 288], (384, 288))])
def test_shard_writer_packs_every_photo_in_two_processes(listing, tmp_path, options, size):
    file, photos = listing
    done = seconds_of("shard_writer.py", file, tmp_path / "out", *options)
    assert done.returncode == 0 and json.loads(done.stdout)["seconds"] > 0, done.stderr
    packed = {}
    for path in tmp_path.glob("out/*/*.tar"):
        with tarfile.open(path) as tar:
            packed |= {member.name: tar.extractfile(member).read() for member in tar}
    assert len(list(tmp_path.glob("out/*/*.tar"))) == 2 and len(packed) == 2 * len(photos)
    for photo in photos:
        assert Image.open(io.BytesIO(packed[photo.name])).size == size
        assert options or packed[photo.name] == photo.read_bytes()


def test_memory_mode_reports_parent_and_worker(call, work, tmp_path):
    done = call(PACKING, "--work", work, "--memory", "--samples", 3, 30, "--json", tmp_path / "m.json")
    assert done.returncode == 0, done.stderr
    entries = json.loads((tmp_path / "m.json").read_text())["memory"]
    assert [entry["samples"] for entry in entries] == [3, 30]
    assert all(20 < entry[who] < 2000 for entry in entries for who in ("parent_mb", "worker_mb"))
    assert done.stdout.count("largest worker") == 2


@pytest.mark.heavy
def test_every_command_is_walked_at_the_size_asked_for(call, tmp_path):
    done = call("benchmarks/full_scale.py", "--work", tmp_path, "--classes", 60, "--json", tmp_path / "s.json")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "s.json").read_text())["commands"]
    assert list(figures) == ["clean", "pack", "verify", "loader", "train"]
    assert all(entry["seconds"] > 0 and entry["parent_mb"] > 20 for entry in figures.values())
    assert 20 < figures["pack"]["worker_mb"] < 170, "a packing worker that imports torch takes 626 MB"
    assert "is whole" in figures["verify"]["printed"]


@pytest.mark.parametrize("options, sentence", [
    (["--rounds", 0], "--rounds is 0: give at least 1"),
    (["--memory", "--samples", 5, 0], "--samples has 0: give numbers of at least 1"),
    (["--peers", "no/such"], "there is no Python in no/such"),
    (["--against", "zip"], "invalid choice: 'zip'"),
])
def test_mistakes_are_one_sentence(call, refused, tmp_path, options, sentence):
    refused(call(PACKING, "--work", tmp_path, *options), sentence)


def test_a_peer_that_is_not_installed_is_named(call, refused, work):
    done = call(PACKING, "--work", work, "--photos", 65, "--resized", 65, "--workers", 1, "--rounds", 1,
                "--against", "mds_writer", "--peers", sys.prefix)
    assert done.returncode == 2 and re.search("mds_writer.py failed .*ModuleNotFoundError: ", done.stderr)


def test_install_names_the_system_packages_that_are_missing(tmp_path):
    done = subprocess.run([PEERS / "install.sh", tmp_path / "peers"], capture_output=True, text=True,
                          env={**os.environ, "PKG_CONFIG_LIBDIR": "/nowhere", "PKG_CONFIG_PATH": ""})
    assert done.returncode == 2 and "run apt-get install pkg-config libopencv-dev libturbojpeg0-dev" in done.stderr
    assert not (tmp_path / "peers").exists()


def seconds_of(runner: str, listing: Path, out: Path, *options: object) -> subprocess.CompletedProcess:
    out.mkdir()
    return subprocess.run([sys.executable, PEERS / runner, "--list", listing, "--out", out, *map(str, options)],
                          capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
