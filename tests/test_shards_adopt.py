"""adopt: tars that other programs wrote become a dataset as they are; what the loader could not read is refused."""
import fcntl
import gzip
import io
import os
import posixpath
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import pytest
import webdataset
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from nvidia.dali import fn, pipeline_def
from PIL import Image
from webdataset.tariterators import base_plus_ext

from arcshard.console import UserError
from loader import Loader
from shards import Dataset, splits
from shards.adopt import adopt
from shards.format import is_key
from shards.repair import repair
from shards.tar import split_name
from shards.verify import verify


def photo(seed: int, **options) -> bytes:
    """A JPEG of 40 × 30 pixels of noise, 4:2:0."""
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "JPEG", **{"subsampling": "4:2:0"} | options)
    return out.getvalue()


def webdataset_tars(folder: Path, samples: list[dict]) -> list[Path]:
    """What webdataset.ShardWriter writes by default, three samples a shard."""
    with webdataset.ShardWriter(str(folder / "wds-%04d.tar"), maxcount=3, verbose=0) as writer:
        for sample in samples:
            writer.write(sample)
    return sorted(folder.glob("wds-*.tar"))


def tar_of(path: Path, members: list[tuple[str, bytes]], **options) -> Path:
    """A tar of named members; options: of tarfile."""
    with tarfile.open(path, "w", **{"format": tarfile.USTAR_FORMAT} | options) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def pairs(*keys: str) -> list[tuple[str, bytes]]:
    """Members of sound samples with labels 0, 1, 2, …"""
    return [member for label, key in enumerate(keys)
            for member in ((f"{key}.jpg", photo(label)), (f"{key}.cls", str(label).encode()))]


@pytest.fixture(scope="module")
def tars(tmp_path_factory) -> list[Path]:
    """Seven samples in three tars of webdataset: .cls before .jpg, and PAX headers for the fraction of mtime."""
    folder = tmp_path_factory.mktemp("wds")
    samples = [{"__key__": f"k{number}", "jpg": photo(number), "cls": number % 4} for number in range(7)]
    return webdataset_tars(folder, samples)


def test_tars_of_webdataset_are_adopted_as_they_are(tars, tmp_path):
    """Linked, not copied or changed; samples, labels and landmark ids are there, .idx is what wds2idx writes."""
    before = [tar.read_bytes() for tar in tars]
    assert b"PaxHeader" in before[0] and before[0].index(b"k0.cls") < before[0].index(b"k0.jpg")
    adopt({"train": tars, "val": [tar_of(tmp_path / "v.tar", pairs("v0", "v1"))]}, tmp_path / "out")
    assert verify(tmp_path / "out") == [] and repair(tmp_path / "out") == ([], [])
    assert splits(tmp_path / "out") == ["train", "val"]
    dataset = Dataset(tmp_path / "out")
    assert (len(dataset), dataset.num_classes, dataset.landmark_ids) == (7, 4, ["0", "1", "2", "3"])
    assert [dataset.read(i) for i in range(7)] == [photo(i) for i in range(7)]
    assert dataset.labels.tolist() == [0, 1, 2, 3, 0, 1, 2] and dataset.index["key"][6] == b"k6"
    assert dataset.manifest["packing"] == {"adopted": True, "short_side": 30, "quality": 90}
    assert (tmp_path / "out" / "classes.csv").read_text() == (
        "label,landmark_id,images,name\n0,0,2,\n1,1,2,\n2,2,2,\n3,3,1,\n")
    for number, tar in enumerate(tars):
        name = tmp_path / "out" / f"train-00000{number}.tar"
        assert tar.read_bytes() == before[number] and os.path.samefile(tar, name)
        command = [str(Path(sys.executable).with_name("wds2idx")), str(tar), str(tmp_path / "x.idx")]
        subprocess.run(command, check=True, capture_output=True)
        assert name.with_suffix(".idx").read_bytes() == (tmp_path / "x.idx").read_bytes()


def test_tars_of_gnu_tar_are_adopted(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    for name, data in pairs("a", "b"):
        (folder / name).write_bytes(data)
    subprocess.run(["tar", "--sort=name", "-cf", str(tmp_path / "a.tar"), "-C", str(folder),
                    *sorted(os.listdir(folder))], check=True)
    adopt({"train": [tmp_path / "a.tar"]}, tmp_path / "out")
    assert verify(tmp_path / "out") == [] and Dataset(tmp_path / "out").index["key"].tolist() == [b"a", b"b"]


def test_the_loader_reads_adopted_tars(tars, tmp_path):
    adopt({"train": tars}, tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    loader = Loader(dataset, batch_size=4, size=30, train=False, num_threads=1)
    found = [(int(i), int(label)) for batch in loader for i, label in zip(batch.ids, batch.labels)]
    assert found == list(enumerate([0, 1, 2, 3, 0, 1, 2]))


ODD = [("./train/IMG 1.JPEG", photo(1)), ("./train/IMG 1.json", b"{}"), ("./train/IMG 1.cls", b"3\n"),
       ("README", b"read me"), ("._c.jpg", b"of macOS"), ("c.cls", b"0"), ("c.seg.png", b"a mask"),
       ("c.image.jfif", photo(2)), (f"x/{'y' * 120}/B.jpe", photo(3)), (f"x/{'y' * 120}/B.cls", b" 1 ")]
ODD_KEYS = ["train-img-1-99f1c1eaba664625", "c", f"{'y' * 77}-b-1e5a0def994eb17f"]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_odd_names_and_members_are_adopted(tmp_path, form):
    """Folders, ./, capitals, long names, all extensions of JPEG; other members are skipped. DALI reads by the .idx."""
    with tarfile.open(tmp_path / "odd.tar", "w", format=form) as tar:
        for name in (".", "train"):
            folder = tarfile.TarInfo(name)
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
        for name, data in ODD:
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(data), {"LIBARCHIVE.xattr.com.apple.FinderInfo": "AAAA"}
            info.type = tarfile.AREGTYPE if name == "c.image.jfif" else tarfile.REGTYPE
            tar.addfile(info, io.BytesIO(data))
    adopt({"train": [tmp_path / "odd.tar"]}, tmp_path / "out")
    assert verify(tmp_path / "out") == [] and repair(tmp_path / "out") == ([], [])
    dataset = Dataset(tmp_path / "out")
    assert [key.decode() for key in dataset.index["key"]] == ODD_KEYS and dataset.labels.tolist() == [3, 0, 1]
    assert [dataset.read(i) for i in range(3)] == [photo(1), photo(2), photo(3)]

    @pipeline_def(batch_size=3, num_threads=1, device_id=None)
    def pipeline():
        tar = tmp_path / "out" / "train-000000.tar"
        return tuple(fn.readers.webdataset(paths=str(tar), index_paths=str(tar.with_suffix(".idx")), ext=["jpg", "cls"],
                                           missing_component_behavior="error"))

    photos, labels = pipeline().run()
    assert [bytes(photos.at(i)) for i in range(3)] == [photo(1), photo(2), photo(3)]
    assert [int(bytes(labels.at(i))) for i in range(3)] == [3, 0, 1]


def test_both_orders_in_one_dataset_survive_repair(tars, tmp_path):
    adopt({"train": [*tars, tar_of(tmp_path / "p.tar", pairs("p0", "p1"))]}, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for path in (tmp_path / "out").iterdir():
        if path.suffix in (".idx", ".npy", ".json"):
            path.unlink()
    assert repair(tmp_path / "out").lost == []
    after = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert after["dataset.json"] == before["dataset.json"].replace(b'"adopted"', b'"repaired"')
    assert after | {"dataset.json": b""} == before | {"dataset.json": b""}


def test_the_result_does_not_depend_on_the_processes(tars, tmp_path):
    for workers in (1, 2):
        adopt({"train": tars}, tmp_path / f"{workers}", workers=workers)
    assert [path.read_bytes() for path in sorted((tmp_path / "1").iterdir())] == [
        path.read_bytes() for path in sorted((tmp_path / "2").iterdir())]


def test_tars_on_another_disk_are_copied(tars, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")
    monkeypatch.setattr(os, "link", refuse)
    adopt({"train": tars}, tmp_path / "out")
    assert verify(tmp_path / "out") == []
    assert not os.path.samefile(tars[0], tmp_path / "out" / "train-000000.tar")


def test_a_link_to_a_tar_is_followed(tars, tmp_path):
    (tmp_path / "link.tar").symlink_to(tars[0])
    adopt({"train": [tmp_path / "link.tar"]}, tmp_path / "out")
    assert not (tmp_path / "out" / "train-000000.tar").is_symlink() and verify(tmp_path / "out") == []


def test_classes_name_the_labels(tars, tmp_path):
    (tmp_path / "c.csv").write_text('name,label,landmark_id\nEiffel,1,77\n"Dom, Köln",0,9\n,3,x\n,2,5\n,4,none\n')
    adopt({"train": tars}, tmp_path / "out", tmp_path / "c.csv")
    dataset = Dataset(tmp_path / "out")
    assert dataset.landmark_ids == ["9", "77", "5", "x", "none"] and dataset.num_classes == 5
    assert (tmp_path / "out" / "classes.csv").read_text().splitlines()[1] == '0,9,2,"Dom, Köln"'
    assert verify(tmp_path / "out") == []


@pytest.mark.parametrize("text, sentence", [
    ("label,landmark_id\n0,a\n1,b\n2,c\n", " is 3, not below 3, the number of classes: name all classes with "),
    ("label,landmark_id\n0,a\n1,b\n3,c\n", "c.csv has label 3 where 2 belongs"),
    ("label,landmark_id\n0,a\n1,a\n", "c.csv has a landmark_id in several rows"),
    ("label,id\n0,a\n", "c.csv lacks the columns landmark_id: "),
    ("label,landmark_id\nx,a\n", "is not a CSV file in UTF-8 whose labels are numbers (invalid literal"),
    ("landmark_id,label\na\n", "is not a CSV file in UTF-8 whose labels are numbers (invalid literal"),
    ("label,landmark_id\n0\n", "c.csv has no landmark_id for label 0"),
    (None, "check --classes")])
def test_classes_that_do_not_fit_are_refused(tars, tmp_path, text, sentence):
    if text is not None:
        (tmp_path / "c.csv").write_text(text)
    with pytest.raises(UserError) as error:
        adopt({"train": tars}, tmp_path / "out", tmp_path / "c.csv")
    assert sentence in str(error.value) and "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ([] if text is None else ["c.csv"])


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return photo(0, exif=exif.tobytes())


JPG, CLS = ("a.jpg", photo(0)), ("a.cls", b"0")
REFUSED = {
    "PNG": ([("a.PNG", b"\x89PNG"), CLS], "at offset 0: member a.PNG is no JPEG"),
    "PNG without a label": ([*pairs("b"), ("a.png", b"\x89PNG")], "member a.png is no JPEG"),
    "no label": ([JPG, ("a.json", b"{}"), *pairs("b")], "at offset 0: member a.jpg has no a.cls beside it"),
    "no photo": ([CLS, *pairs("b")], "at offset 0: member a.cls has no a.jpg beside it"),
    "apart": ([JPG, ("b.jpg", photo(1)), CLS, ("b.cls", b"0")], "member a.jpg has no a.cls beside it"),
    "two photos": ([JPG, ("a.left.jpg", photo(1)), CLS], "member a.left.jpg is the second jpg of its sample"),
    "names on several lines": ([("a\nb.jpg", photo(0))], "member a\\nb.jpg has no a\\nb.cls beside it"),
    "word": ([JPG, ("a.cls", b"cat")], "member a.cls is 'cat', not a label"),
    "two numbers": ([JPG, ("a.cls", b"1\n2")], "member a.cls is '1\\n2', not a label"),
    "empty label": ([JPG, ("a.cls", b"")], "member a.cls is '', not a label"),
    "no class": ([JPG, ("a.cls", b"-2")], "member a.cls is '-2', not a label"),
    "long label": ([JPG, ("a.cls", b"9" * 99)], f"is '{'9' * 20}…', not a label"),
    "large label": ([JPG, ("a.cls", b"10000000")], "is 10000000, not below 10,000,000, the number of classes"),
    "progressive": ([("a.jpg", photo(0, progressive=True)), CLS], "member a.jpg is progressive, not baseline"),
    "4:4:4": ([("a.jpg", photo(0, subsampling="4:4:4")), CLS], "a.jpg has chroma sampling 1x1 1x1 1x1, not 4:2:0"),
    "turned": ([("a.jpg", turned()), CLS], "member a.jpg is stored turned (EXIF orientation 6)"),
    "cut photo": ([("a.jpg", photo(0)[:-300]), CLS], "member a.jpg cannot be decoded (Premature end of JPEG file)"),
    "no photo at all": ([("a.jpg", b"<html>"), CLS], "member a.jpg cannot be decoded ("),
    "empty photo": ([("a.jpg", b""), CLS], "member a.jpg cannot be decoded ("),
    "no members": ([], "holds no sample"),
    "twice": (pairs("b", "b"), "member b.jpg is the second jpg of its sample"),
    "twice, apart": (pairs("b", "c", "b"), " both hold a sample with the key b"),
}


@pytest.mark.parametrize("members, sentence", REFUSED.values(), ids=REFUSED)
def test_what_the_format_forbids_is_refused_by_tar_and_member(tmp_path, members, sentence):
    """Whatever sound tars come before it; nothing is left behind."""
    good, bad = tar_of(tmp_path / "good.tar", pairs("g")), tar_of(tmp_path / "bad.tar", members)
    with pytest.raises(UserError) as error:
        adopt({"train": [good], "val": [bad]}, tmp_path / "out")
    assert sentence in str(error.value) and str(bad) in str(error.value) and "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.tar", "good.tar"]


def test_a_damaged_pax_keyword_is_shown_on_one_line(tmp_path):
    with tarfile.open(tmp_path / "bad.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a.jpg")
        info.pax_headers = {"GNU.sparse.\n\0": "1"}
        tar.addfile(info)
    with pytest.raises(UserError) as error:
        adopt({"train": [tmp_path / "bad.tar"]}, tmp_path / "out")
    assert r"a PAX header with 'GNU.sparse.\n\x00', of a file that is not stored plainly" in str(error.value)


def test_links_are_refused(tmp_path):
    for kind, word in ((tarfile.SYMTYPE, "a link"), (tarfile.LNKTYPE, "a link"), (tarfile.FIFOTYPE, "of type b'6'")):
        with tarfile.open(tmp_path / "bad.tar", "w") as tar:
            info = tarfile.TarInfo("a.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        with pytest.raises(UserError, match=f"member 'a.jpg' is {word}, not a plain file"):
            adopt({"train": [tmp_path / "bad.tar"]}, tmp_path / "out")


def test_a_compressed_tar_is_refused(tars, tmp_path):
    (tmp_path / "a.tar").write_bytes(gzip.compress(tars[0].read_bytes()))
    with pytest.raises(UserError) as error:
        adopt({"train": [tmp_path / "a.tar"]}, tmp_path / "out")
    assert str(error.value) == (f"{tmp_path}/a.tar is compressed with gzip, so its samples cannot be read at random: "
                                "decompress it to a plain .tar first")


def test_the_same_key_in_two_tars_is_refused(tars, tmp_path):
    again = tar_of(tmp_path / "again.tar", pairs("other", "k4"))
    with pytest.raises(UserError) as error:
        adopt({"train": tars, "test": [again]}, tmp_path / "out")
    assert sorted([str(tars[1]), str(again)]) == sorted(
        str(error.value).partition(" both hold a sample with the key k4")[0].split(" and "))


def test_faults_are_counted(tmp_path):
    bad = [tar_of(tmp_path / f"{name}.tar", [*pairs("k"), (f"{name}.png", b""), ("z.png", b"")]) for name in "ab"]
    with pytest.raises(UserError, match=r"\(4 faults in 2 tars\): unpack the tars and pack"):
        adopt({"train": bad}, tmp_path / "out")


def test_mistaken_paths_are_sentences(tars, tmp_path):
    with pytest.raises(UserError, match=f"there is no file {tmp_path}/no.tar: check the path"):
        adopt({"train": [*tars, tmp_path / "no.tar"]}, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(UserError, match=f"--out {tmp_path}/full exists already: choose a new folder"):
        adopt({"train": tars}, tmp_path / "full")


def test_what_a_killed_call_left_is_no_obstacle(tars, tmp_path):
    (tmp_path / ".out.adopting").mkdir()
    shutil.copy(tars[0], tmp_path / ".out.adopting" / "train-000009.tar")
    (tmp_path / "out").mkdir()
    adopt({"train": tars}, tmp_path / "out")
    assert verify(tmp_path / "out") == [] and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_calls_do_not_disturb_each_other(tars, tmp_path):
    (tmp_path / ".out.adopting").mkdir()
    handle = os.open(tmp_path / ".out.adopting", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="is locked: another process writes into it"):
            adopt({"train": tars}, tmp_path / "out")
    finally:
        os.close(handle)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of its own, 16 KB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small file system here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tars, small_disk):
    with pytest.raises(UserError, match=f"^no room left for {small_disk}/.*out.*No space left on device.* run the "):
        adopt({"train": tars}, small_disk / "out")
    assert list(small_disk.iterdir()) == []
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    adopt({"train": tars}, small_disk / "out")
    assert verify(small_disk / "out") == []


def test_the_command(tars, tmp_path, call, refused):
    val = tar_of(tmp_path / "v.tar", pairs("v0"))
    done = call("-m", "shards", "adopt", *tars, "--val", val, "--out", tmp_path / "out", "--workers", 2)
    assert done.returncode == 0 and "train: 7 samples in 3 shards" in done.stdout
    assert call("-m", "shards", "verify", tmp_path / "out").returncode == 0
    refused(call("-m", "shards", "adopt", tmp_path / "no.tar", "--out", tmp_path / "x"), "there is no file ")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_tar_is_refused_or_is_a_whole_dataset(tars, tmp_path, data):
    """Bytes replaced anywhere, the end cut off anywhere: a sentence, or a dataset that verify finds whole."""
    sound = tars[0].read_bytes()
    at = data.draw(st.integers(0, len(sound) - 1))
    junk = data.draw(st.one_of(st.binary(min_size=1, max_size=16), st.sampled_from([bytes(512), b"\xff" * 700])))
    changed = sound[:at] + junk + sound[at + len(junk):]
    (tmp_path / "a.tar").write_bytes(changed[:data.draw(st.sampled_from([len(changed), at, at // 512 * 512]))])
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    try:
        adopt({"train": [tmp_path / "a.tar"]}, tmp_path / "out")
    except UserError as error:
        assert "\n" not in str(error) and [path.name for path in tmp_path.iterdir()] == ["a.tar"]
    else:
        assert verify(tmp_path / "out") == []


@settings(max_examples=100)
@given(st.one_of(st.text(max_size=40), st.from_regex(r"[0-9a-z_-]{1,110}", fullmatch=True),
                 st.from_regex(r"[0-9a-z_. A-Z/-]{1,8}", fullmatch=True)), st.sampled_from(["USTAR", "PAX", "GNU"]))
def test_any_name_becomes_a_key(tmp_path_factory, name, form):
    """The same one if it can be a key. webdataset separates name and extension at the same dot."""
    folder = tmp_path_factory.mktemp("name")
    assume("\0" not in name)
    try:
        tar = tar_of(folder / "a.tar", [*pairs("other"), *pairs(name)], format=getattr(tarfile, f"{form}_FORMAT"))
    except (ValueError, UnicodeEncodeError):  # names that the tar format itself cannot hold
        return
    stem, extension = split_name(f"{name}.jpg")
    if stem:  # not hidden
        assert base_plus_ext(posixpath.normpath(f"{name}.jpg")) == (stem, ANY) and extension == "jpg"
    adopt({"train": [tar]}, folder / "out")
    key = Dataset(folder / "out").index["key"][1:].tolist()
    assert [is_key(found.decode()) for found in key] == ([True] if stem else [])
    assert not is_key(name) or key == [name.encode()]
