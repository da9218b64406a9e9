"""Photos come from folders and archives in the order given, and each mistake is answered in a sentence."""
import hashlib
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pytest

import preprocess.sources.index
from arcshard.console import UserError
from preprocess.sources import PhotoLocation, PhotoSource, open_source
from tests.photo_archives import KEYS, NAMED, PHOTOS, kaggle_path, outcome, tar_bytes, write_folder, zip_bytes

KEY = "abc123"
ROOT = Path(__file__).parent.parent


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache" / "sources"


def opened(cache: Path, *images: Path | str, workers: int = 1) -> PhotoSource:
    return open_source([str(image) for image in images], cache, workers)


def reads(locations: list[PhotoLocation]) -> list[bytes | str]:
    return [outcome(location) for location in locations]


def test_a_folder_of_each_layout_is_searched_and_different_photos_for_one_id_are_refused(tmp_path, cache):
    source = opened(cache, tmp_path)
    for folder in ("", "index/a/b/c/", "test/a/b/c/", "train/a/b/c/", "a/b/c/"):
        write_folder(tmp_path, {f"{folder}{KEY}.jpg": b"photo", f"{folder}abc.jpg": folder.encode()})
        assert reads(source.locate([KEY], None)) == [b"photo"]
        assert reads(source.locate(["k"], [f"{folder}abc.jpg"])) == [folder.encode()]
    with pytest.raises(UserError, match=r"different files abc.jpg \(a/b/c/abc.jpg, train/a/b/c.*column path"):
        reads(source.locate(["abc"], None))
    assert not cache.exists()


def test_a_short_key_is_found_in_a_flat_folder(tmp_path, cache):
    write_folder(tmp_path, {"x.jpg": b"one", "xy.jpg": b"two"})
    assert reads(opened(cache, tmp_path).locate(["x", "xy", "z"], None)) == [b"one", b"two", "file not found"]


def test_paths_stay_within_the_folder(tmp_path, cache):
    folder = write_folder(tmp_path / "in", {"class 1/é.png": b"photo", "..odd/x.jpg": b"odd"})
    write_folder(tmp_path, {"out.jpg": b"secret"})
    dots, missing, absolute = 'path has ".."', "file not found", "path is absolute, and not below a folder of --images"
    expected: dict[str, bytes | str] = {
        "class 1/é.png": b"photo", "./class 1//é.png": b"photo", "..odd/x.jpg": b"odd", "../out.jpg": dots,
        "class 1/../../out.jpg": dots, "..\\out.jpg": dots, "a\0b": missing, "missing.jpg": missing,
        "class 1/é.png/x": missing, "\ud800": missing, f"{folder}/class 1/é.png": b"photo",
        f"{folder}/../in//class 1/./é.png": b"photo", f"{folder}/missing.jpg": missing, f"{folder}/../out.jpg": dots,
        str(tmp_path / "out.jpg"): absolute, f"{folder}2/x.jpg": absolute, "C:\\photos\\x.jpg": absolute,
        "s3://photos/x.jpg": absolute}
    (tmp_path / "empty.zip").write_bytes(zip_bytes({}))
    for others in ([], [tmp_path / "empty.zip"]):
        places = opened(cache, folder, *others).locate(["k"] * len(expected), list(expected))
        assert dict(zip(expected, reads(places))) == expected


def test_absolute_paths_are_found_below_any_folder(tmp_path, cache):
    one, two = (write_folder(tmp_path / name, {"x.jpg": name.encode()}) for name in ("one", "two"))
    (tmp_path / "x.zip").write_bytes(zip_bytes({"x.jpg": b"zip"}))
    paths = [f"{two}/x.jpg", f"{one}/x.jpg", "x.jpg"]
    assert reads(opened(cache, tmp_path / "x.zip", one, two).locate(["k"] * 3, paths)) == [b"two", b"one", b"zip"]
    assert reads(opened(cache, "/").locate(["k"] * 2, paths[:2])) == [b"two", b"one"]


def test_paths_of_windows_are_found(tmp_path, cache):
    folder = write_folder(tmp_path / "in", {"a/x.jpg": b"x", "a\\y.jpg": b"y"})
    (tmp_path / "z.zip").write_bytes(zip_bytes({"a/z.jpg": b"z"}))
    source = opened(cache, folder, tmp_path / "z.zip")
    assert reads(source.locate(["k"] * 3, ["a\\x.jpg", "a\\y.jpg", "a\\z.jpg"])) == [b"x", b"y", b"z"]


def test_links_that_the_user_made_are_followed(tmp_path, cache):
    write_folder(tmp_path / "elsewhere", {"a.jpg": b"photo"})
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"{KEY}.jpg").symlink_to(tmp_path / "elsewhere" / "a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    assert reads(opened(cache, tmp_path / "link").locate([KEY], None)) == [b"photo"]


def test_a_file_that_cannot_be_read_is_rejected_with_the_reason(tmp_path, cache, monkeypatch):
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    monkeypatch.setattr("preprocess.sources.photo_source.MAX_PHOTO", 10)
    write_folder(tmp_path, {"large.jpg": bytes(11), "fits.jpg": bytes(10), "empty.jpg": b""})
    expected: dict[str, bytes | str] = {
        "folder": "unreadable: Is a directory", "loop": "unreadable: Too many levels of symbolic links",
        "large": "larger than 256 MiB", "fits": bytes(10), "empty": b"", "y" * 300: "unreadable: File name too long"}
    assert dict(zip(expected, reads(opened(cache, tmp_path).locate(list(expected), None)))) == expected


def test_no_photo_is_left_out_because_the_process_or_the_disk_failed(tmp_path, cache):
    folder = write_folder(tmp_path / "in", NAMED)
    tar = tmp_path / "photos.tar"
    tar.write_bytes(tar_bytes(NAMED))
    place, = opened(cache, folder).locate(KEYS[:1], None)
    in_tar, = opened(cache, tar).locate(KEYS[:1], None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            place.read()
        with pytest.raises(UserError, match="Too many open files"):
            in_tar.read()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    folder.rename(tmp_path / "unmounted")
    tar.unlink()
    with pytest.raises(UserError, match=r"/in, the photos' folder, is gone: bring it back"):
        place.read()
    with pytest.raises(UserError, match=r"photos\.tar cannot be read \(.*No such file"):
        in_tar.read()


def test_the_first_source_that_has_a_photo_gives_it(tmp_path, cache):
    def holding(word: str, *numbers: int) -> dict[str, bytes]:
        return {kaggle_path(KEYS[number]): f"{word} {number}".encode() for number in numbers}

    one = write_folder(tmp_path / "one", holding("one", 0))
    (tmp_path / "two.tar").write_bytes(tar_bytes(holding("two", 0, 1)))
    (tmp_path / "three.zip").write_bytes(zip_bytes(holding("three", 0, 1, 2)))
    four = write_folder(tmp_path / "four", holding("four", 0, 1, 2, 3))
    source = opened(cache, one, tmp_path / "two.tar", tmp_path / "three.zip", four)
    wanted = [b"one 0", b"two 1", b"three 2", b"four 3", "file not found"]
    assert reads(source.locate(KEYS[:5], None)) == wanted
    assert reads(source.locate(["k"] * 5, [kaggle_path(key) for key in KEYS[:5]])) == wanted
    assert reads(opened(cache, four, tmp_path / "two.tar").locate(KEYS[:1], None)) == [b"four 0"]
    assert reads(opened(cache, tmp_path / "three.zip", tmp_path / "two.tar").locate(KEYS[:1], None)) == [b"three 0"]


def test_places_are_read_by_other_processes(tmp_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.tar").write_bytes(tar_bytes(dict(list(NAMED.items())[:6])))
    Path("b.zip").write_bytes(zip_bytes(dict(list(NAMED.items())[6:])))
    Path("f").mkdir()
    source = opened(cache, "a.tar", f"file://{tmp_path}/b.zip", "f", workers=2)
    assert source.urls == [str(tmp_path / name) for name in ("a.tar", "b.zip", "f")]
    monkeypatch.chdir("/")
    places = source.locate(KEYS, None)
    assert len(pickle.dumps(places)) < 200 * len(places)
    photos = joblib.Parallel(2, backend="loky")(joblib.delayed(PhotoLocation.read)(place) for place in places)
    assert photos == list(PHOTOS.values())


def test_a_pattern_names_many_archives_and_a_name_that_looks_like_one_is_itself(tmp_path, cache, monkeypatch):
    monkeypatch.setattr("preprocess.sources.index.ROWS_PER_SLICE", 1)
    for number in range(3):
        files = {kaggle_path(key): PHOTOS[key] for key in KEYS[number::3]}
        (tmp_path / f"images_{number}.tar").write_bytes(tar_bytes(files))
    (tmp_path / "images_2.tar").rename(tmp_path / "two")
    (tmp_path / "images_2.tar").symlink_to("two")
    source = opened(cache, tmp_path / "images_*.tar")
    assert source.urls == [f"{tmp_path}/images_{number}.tar" for number in range(3)]
    assert reads(source.locate([*KEYS, "none"], None)) == [*PHOTOS.values(), "file not found"]
    odd = write_folder(tmp_path / "photos[1]", {f"{KEY}.jpg": b"photo"})
    assert opened(cache, odd).urls == [str(odd)]


def test_an_empty_folder_and_an_empty_zip_have_no_photos(tmp_path, cache):
    (tmp_path / "empty.zip").write_bytes(zip_bytes({}))
    (tmp_path / "folder").mkdir()
    source = opened(cache, tmp_path / "folder", tmp_path / "empty.zip")
    assert reads(source.locate([KEY], None)) == ["file not found"]
    assert reads(source.locate([KEY], [f"{KEY}.jpg"])) == ["file not found"]
    assert source.locate([], None) == []


def test_an_index_is_reused_until_its_archive_changes(tmp_path, cache):
    first, second = tmp_path / "1.tar", tmp_path / "2.tar"
    first.write_bytes(tar_bytes({f"{KEY}.jpg": b"old"}))
    second.write_bytes(tar_bytes({"other.jpg": b"same"}))

    def files() -> dict[str, int]:
        assert reads(opened(cache, first, second).locate(["other"], None)) == [b"same"]
        return {path.name: path.stat().st_ino for path in cache.iterdir()}

    before = files()
    assert len(before) == 3 and files() == before
    first.write_bytes(tar_bytes({f"{KEY}2.jpg": b"new"}))  # of the same size
    os.utime(first, (1, 1))
    assert len(files()) == 3 and len(files().items() & before.items()) == 1  # the second one's stays, old ones go
    assert reads(opened(cache, first).locate([KEY, f"{KEY}2"], None)) == ["file not found", b"new"]


def test_an_archive_that_changes_after_indexing_gives_no_wrong_photo(tmp_path, cache):
    for name, make in {"a.tar": tar_bytes, "a.zip": zip_bytes}.items():
        (tmp_path / name).write_bytes(make({"one.jpg": b"1" * 600, "two.jpg": b"2" * 600}))
        places = opened(cache, tmp_path / name).locate(["one", "two"], None)
        (tmp_path / name).write_bytes(make({"two.jpg": b"2" * 600, "one.jpg": b"1" * 600}))
        assert reads(places) == ["unreadable: the archive has 'two.jpg' where it was indexed",
                                 "unreadable: the archive has 'one.jpg' where it was indexed"]


def test_a_kill_while_indexing_loses_no_finished_index(tmp_path, cache):
    with open(tmp_path / "0.tar", "wb") as f:
        f.write(tar_bytes({f"{number:05}.jpg": b"" for number in range(3000)}))
    for number in range(1, 40):
        os.link(tmp_path / "0.tar", tmp_path / f"{number}.tar")
    script = ("from pathlib import Path; from preprocess.sources import open_source\n"
              f"open_source(['{tmp_path}/*.tar'], Path('{cache}'), 1)")
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.DEVNULL)
    while len(list(cache.glob("*.npy"))) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_ino for path in cache.glob("*.npy")}
    assert len(done) < 40
    assert all(len(np.load(path)) == 3000 for path in done)
    source = opened(cache, tmp_path / "*.tar")
    assert {path: path.stat().st_ino for path in cache.glob("*.npy")}.items() > done.items()
    assert reads(source.locate(["02999", "03000"], None)) == [b"", "file not found"]


def refusal(cache: Path, *images: Path | str, workers: int = 1) -> str:
    with pytest.raises(UserError) as error:
        opened(cache, *images, workers=workers)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_what_is_no_source_of_photos_is_answered_in_a_sentence(tmp_path, cache):
    for name in ("no", "no*.tar"):
        assert refusal(cache, tmp_path / name).startswith(f"{tmp_path}/{name} does not exist: check --images")
    os.mkfifo(tmp_path / "pipe")
    assert refusal(cache, tmp_path / "pipe") == f"{tmp_path}/pipe is neither folder, zip nor tar: check --images"
    for data in (b"", b"id,label\n" * 99, bytes(10240)):
        (tmp_path / "table.csv").write_bytes(data)
        assert refusal(cache, tmp_path / "table.csv") == (
            f"{tmp_path}/table.csv is neither a whole zip nor an uncompressed tar: check --images")
    for name, magic in {"gzip": "1f8b08", "bzip2": "425a6839", "xz": "fd377a585a00", "zstd": "28b52ffd",
                        "7-Zip": "377abcaf271c", "RAR": "526172211a07"}.items():
        (tmp_path / "x.tar.gz").write_bytes(bytes.fromhex(magic) + b"x" * 600)
        assert refusal(cache, tmp_path / "x.tar.gz") == (
            f"{tmp_path}/x.tar.gz is compressed with {name}, which has no random access: decompress it first")


def test_a_protocol_without_its_package_names_what_to_install(cache, monkeypatch):
    for protocol, package in {"s3": "s3fs", "gs": "gcsfs"}.items():
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, protocol, raising=False)
        monkeypatch.setitem(sys.modules, package, None)
    assert refusal(cache, "s3://b/x.zip") == (
        "s3://b/x.zip needs a package for s3://, which is not installed: pip install 'arcshard[s3]'")
    assert "needs a package for gs://, which is not installed: Please install gcsfs" in refusal(cache, "gs://b/x.zip")
    assert refusal(cache, "s4://b").startswith("s4://b has a protocol that fsspec does not know (")


def test_one_bad_archive_is_named_and_the_others_stay_indexed(tmp_path, cache):
    for number in range(5):
        (tmp_path / f"{number}.tar").write_bytes(tar_bytes({f"{number}.jpg": b"photo"}))
    os.truncate(tmp_path / "3.tar", 700)
    for workers in (1, 2):
        assert refusal(cache, tmp_path / "*.tar", workers=workers) == (
            f"{tmp_path}/3.tar ends within its member 3.jpg: fetch it again")
    assert len(list(cache.glob("*.npy"))) >= 3


def test_more_archives_than_the_index_can_number_are_refused(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(preprocess.sources.index, "MAX_ARCHIVES", 2)
    for number in range(3):
        (tmp_path / f"{number}.tar").write_bytes(tar_bytes(NAMED))
    assert refusal(cache, tmp_path / "*.tar") == "3 archives are too many for --images (at most 2): join some"


@pytest.mark.parametrize("folder_of_md5", ["", "md5sum/", "../md5sum/train/"])
def test_a_tar_is_compared_with_its_published_md5(folder_of_md5, tmp_path, cache):
    place = f"{folder_of_md5}md5.images_000.txt"
    data = tar_bytes(NAMED)
    folder = write_folder(tmp_path / "train", {"images_000.tar": data})
    tar, right = folder / "images_000.tar", hashlib.md5(data).hexdigest()
    write_folder(folder, {place: f"{right}  images_000.tar\n".encode()})
    assert reads(opened(cache, tar).locate(KEYS, None)) == list(PHOTOS.values())

    changed = data.replace(PHOTOS[KEYS[3]][:6], b"PHOTO ")
    tar.write_bytes(changed)
    assert refusal(cache, tar) == (f"{tar} has the md5 {hashlib.md5(changed).hexdigest()} instead of its publisher's "
                                   f"{right}: fetch it again")
    (folder / place).write_bytes(b"<html>404</html>")
    assert refusal(cache, tar).endswith("lacks the line '<md5>  images_000.tar': fetch it again")
