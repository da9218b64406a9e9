"""The comparison of loaders at its smallest: what it runs, says and refuses; its figures are nobody's assertion."""
import json
import subprocess
import sys
from pathlib import Path

import pytest

from shards import Dataset

ROOT = Path(__file__).parent.parent
LOADERS = "benchmarks/loaders.py"
PEERS = ROOT / "benchmarks" / "peers"
FEW = ("--photos", 80, "--batch-size", 4, "--workers", 1, "--rounds", 1, "--seconds", 0.05)


@pytest.fixture(scope="session")
def work(tmp_path_factory) -> Path:
    """A work folder that keeps its photos and forms for the next test."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture
def contest(module):
    return {contest.name: contest for contest in module("loaders_contests").CONTESTS}


def test_a_round_has_every_contender_and_the_report_their_ratios(call, work, tmp_path):
    done = call(LOADERS, "--work", work, *FEW, "--contests", "originals", "--against", "dali", "decode", "read",
                "torchvision", "--json", tmp_path / "l.json")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "l.json").read_text())
    assert report["settings"] == {"photos": 80, "batch_size": 4, "workers": 1, "seconds": 0.05}
    found = report["contests"]["originals"]
    assert found["absent"] == {}
    assert [set(each) for each in found["rounds"]] == [{"arcshard", "dali", "decode", "read", "torchvision"}]
    assert all(rate > 0 for rate in found["rounds"][0].values())
    assert "goal 1.5: " in done.stdout and "best of others arcshard is " in done.stdout


def test_a_ratio_is_of_one_round_and_the_verdict_of_the_median(module, contest):
    rounds = [dict(arcshard=a, decode=d, dali=n, timm=t, ffcv=f)
              for a, d, n, t, f in ((300, 300, 100, 50, 150), (100, 200, 100, 100, 50), (200, 400, 200, 20, 160))]
    title, ours, decode, dali, timm, ffcv, best = module("loaders").contest_lines(
        contest["originals"], rounds, {})
    assert title == "originals: originals, 224 px"
    assert ours.split() == "arcshard 200 (100 to 300, n = 3) images/s".split()
    assert decode.endswith("arcshard is 0.50 (0.50 to 1.00, n = 3) of it, goal 0.85: missed")
    assert dali.endswith("arcshard is 1.00 (1.00 to 3.00, n = 3) times as fast, goal 1.5: missed")
    assert ffcv.endswith("arcshard is 2.00 (1.25 to 2.00, n = 3) times as fast")
    assert best.endswith("best of others arcshard is 1.25 (1.00 to 2.00, n = 3) times as fast, goal 1.2: met")


def test_the_goal_of_reading_is_a_rate(module, contest):
    _, _, read = module("loaders").contest_lines(contest["tiny"], [{"arcshard": 9.0, "read": 41_000.0}], {})
    assert read.endswith("41,000 (41,000 to 41,000, n = 1) images/s, goal 40,000: met")


def test_who_was_absent_from_a_round_has_a_reason_instead_of_a_rate(module, contest):
    lines = module("loaders").contest_lines(
        contest["originals"], [{"arcshard": 9.0, "spdl": 3.0}, {"arcshard": 9.0}], {"spdl": "it fell ill"})
    assert lines[-1].split() == "spdl did not run: it fell ill".split()
    assert not any("best of others" in line or "3 (" in line for line in lines)


def test_a_peer_that_cannot_run_is_named_and_the_contest_goes_on(call, work):
    done = call(LOADERS, "--work", work, *FEW, "--contests", "originals", "--against", "spdl", "--peers", sys.prefix)
    assert done.returncode == 0, done.stderr
    assert "spdl           did not run: " in done.stdout and "ModuleNotFoundError" in done.stdout
    assert "arcshard       " in done.stdout


def test_files_and_shards_of_a_form_hold_the_same_bytes(module, work):
    forms = module("loaders_contests")
    folder = forms.make_form(forms.PACKED, work, 80, workers=1)
    dataset = Dataset(folder / "dataset", "train")
    files = {path.stem: path.read_bytes() for path in map(Path, (folder / "list.txt").read_text().splitlines())}
    keys = [key.decode() for key in dataset.index["key"].tolist()]
    assert len(files) == 80 and files == {key: dataset.read(i) for i, key in enumerate(keys)}
    assert set(zip(dataset.index["width"].tolist(), dataset.index["height"].tolist())) == {(384, 288)}


def test_what_was_half_made_is_made_again(module, tmp_path):
    (tmp_path / "form-part").mkdir()
    (tmp_path / "form-part" / "rest").touch()
    for text in ("whole", "never"):
        module("loaders_contests").once(tmp_path / "form", lambda out: out.write_text(text))
    assert (tmp_path / "form").read_text() == "whole" and not (tmp_path / "form-part").exists()


@pytest.mark.parametrize("runner", ["arcshard", "dali", "torchvision", "timm", "webdataset"])
def test_every_loader_of_the_project_s_environment_hands_out_uint8_batches(module, work, runner):
    rate_of(module, work, runner, Path(sys.executable))


@pytest.mark.heavy  # FFCV compiles
@pytest.mark.parametrize("runner", ["ffcv", "mds", "litdata", "spdl"])
def test_every_peer_hands_out_uint8_batches(module, work, runner):
    python = ROOT / ".peers" / "bin" / "python"
    if not python.exists():
        pytest.skip("the peers are not installed: benchmarks/peers/install.sh")
    forms = module("loaders_contests")
    if runner in module("loaders_contests").OWN_FORMAT:
        forms.pack_with(runner, forms.TINY, forms.make_form(forms.TINY, work, 80, workers=1), python)
    rate_of(module, work, runner, python)


def test_the_runners_check_refuses_other_batches(module, monkeypatch):
    monkeypatch.syspath_prepend(PEERS)
    runner, torch = module("loader_runner"), module("torch")
    args = type("Args", (), {"batch_size": 2, "size": 8})
    runner.check(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), args)
    for images in (torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 9, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"batches must be uint8 \(2, 8, 8, 3\), not "):
            runner.check(images, args)


def test_memory_mode_reports_ten_epochs_and_the_bound(call, work, tmp_path):
    done = call(LOADERS, "--work", work, *FEW, "--memory", "--json", tmp_path / "m.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "m.json").read_text())["memory"]
    assert len(found["grown_mb"]) == 10 and found["samples"] == 80
    assert found["batch_mb"] == pytest.approx(4 * 800 * 600 * 3 / 1e6)
    assert found["bound_mb"] == pytest.approx(4 * found["batch_mb"] + 100)
    assert "bound: 4 batches of 6 MB + 100 MB = 123 MB" in done.stdout


@pytest.mark.parametrize("options, sentence", [
    (["--rounds", 0], "--rounds is 0: give at least 1"),
    (["--seconds", 0], "--seconds is 0: give a positive number"),
    (["--photos", 100], "--photos is 100: give at least 2048, so that an epoch outlasts "),
    (["--peers", "no/such"], "there is no Python in no/such"),
    (["--against", "tfdata"], "invalid choice: 'tfdata'"),
])
def test_mistakes_are_one_sentence(call, refused, tmp_path, options, sentence):
    refused(call(LOADERS, "--work", tmp_path, *options), sentence)


def rate_of(module, work: Path, runner: str, python: Path) -> None:
    forms = module("loaders_contests")
    folder = forms.make_form(forms.TINY, work, 80, workers=1)
    done = subprocess.run([python, PEERS / f"{runner}_loader.py", "--form", folder, "--size", "32", "--batch-size", "4",
                           "--workers", "1", "--seconds", "0.05"], capture_output=True, text=True,
                          env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["images_per_s"] > 0
