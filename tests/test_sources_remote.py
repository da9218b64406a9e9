"""Photos in object storage, through a real S3 protocol server on loopback, and in other file systems of fsspec."""
import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import fsspec
import joblib
import pytest
from fsspec import AbstractFileSystem
from joblib.externals.loky import get_reusable_executor
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from arcshard.console import UserError
from preprocess.sources import PhotoLocation, open_source
from tests.photo_archives import KEYS, NAMED, PHOTOS, kaggle_path, outcome, tar_bytes, zip_bytes


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadedMotoServer]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    yield server
    server.stop()


def end_workers() -> None:
    """loky keeps its processes for the next call, with the environment that they began with."""
    get_reusable_executor().shutdown(wait=True)


@pytest.fixture
def s3(server, monkeypatch) -> Iterator[AbstractFileSystem]:
    """The server's file system, with the bucket `photos`; its settings are in the environment."""
    host, port = server.get_host_and_port()
    for name, value in {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "k",
                        "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()  # of other tests' servers
    fs = fsspec.filesystem("s3", use_listings_cache=False)
    fs.makedirs("photos", exist_ok=True)
    end_workers()
    yield fs
    end_workers()


def put(fs: AbstractFileSystem, root: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        fs.pipe_file(f"{root}/{name}", data)


def test_a_bucket_is_a_folder(s3, tmp_path):
    layouts = ["", "train/", "test/", "index/"]
    files = {kaggle_path(key, layouts[number % 4]): PHOTOS[key] for number, key in enumerate(KEYS)}
    put(s3, "photos/raw", files | {"flat.jpg": b"flat", "empty.jpg": b"", "../out.jpg": b"out"})
    source = open_source(["s3://photos/raw/"], tmp_path, 1)
    assert source.urls == ["s3://photos/raw"]
    keys = [*KEYS, "flat", "empty", "none"]
    assert [outcome(place) for place in source.locate(keys, None)] == [*PHOTOS.values(), b"flat", b"", "file not found"]
    paths = [*files, "s3://photos/raw/flat.jpg", "none.jpg", "../out.jpg"]
    assert [outcome(place) for place in source.locate(["k"] * len(paths), paths)] == [
        *files.values(), b"flat", "file not found", 'path has ".."']


def test_tars_and_a_zip_in_a_bucket_are_read_without_fetching_them(s3, tmp_path):
    parts = [dict(list(NAMED.items())[number::4]) for number in range(4)]
    put(s3, "photos/train", {f"images_{number:03}.tar": tar_bytes(parts[number]) for number in range(3)})
    md5 = hashlib.md5(tar_bytes(parts[1])).hexdigest()
    put(s3, "photos/md5sum/train", {"md5.images_001.txt": f"{md5}  images_001.tar\n".encode()})
    put(s3, "photos", {"rest.zip": zip_bytes(parts[3])})
    tars, rest = "s3://photos/train/*.tar", "s3://photos/rest.zip"
    source = open_source([tars, rest], tmp_path, 2)
    assert source.urls == [f"s3://photos/train/images_{number:03}.tar" for number in range(3)] + [rest]
    places = source.locate(KEYS, None)
    assert [place.read() for place in places] == list(PHOTOS.values())
    photos = joblib.Parallel(2, backend="loky")(joblib.delayed(PhotoLocation.read)(place) for place in places)
    assert photos == list(PHOTOS.values())

    put(s3, "photos/train", {"images_001.tar": tar_bytes({name: data.upper() for name, data in parts[1].items()})})
    with pytest.raises(UserError, match=rf"images_001\.tar has the md5 \w+ instead of its publisher's {md5}: fetch"):
        open_source([tars], tmp_path, 1)


def test_a_changed_object_is_indexed_again(s3, tmp_path):
    for files in ({"x.jpg": b"one", "y.jpg": b""}, {"y.jpg": b"", "x.jpg": b"two"}):  # tars of one size
        put(s3, "photos", {"changing.tar": tar_bytes(files)})
        place, = open_source(["s3://photos/changing.tar"], tmp_path, 1).locate(["x"], None)
        assert place.read() == files["x.jpg"]


def test_what_cannot_be_reached_is_a_sentence_and_rejects_no_photo(s3, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="^s3://photos/no does not exist"):
        open_source(["s3://photos/no"], tmp_path, 1)
    put(s3, "photos", {"lost/x.jpg": b"photo", "lost.zip": zip_bytes({"x.jpg": b"photo"})})
    urls = ["s3://photos/lost", "s3://photos/lost.zip"]
    places = [open_source([url], tmp_path, 1).locate(["x"], None)[0] for url in urls]
    assert [place.read() for place in places] == [b"photo", b"photo"]
    s3.rm("photos/lost.zip")
    with pytest.raises(UserError, match=r"^s3://photos/lost\.zip cannot be read \("):
        places[1].read()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr("arcshard.urls.FIRST_PAUSE", 0.001)
    S3FileSystem.clear_instance_cache()
    with pytest.raises(UserError, match=r"^s3://photos/lost/x\.jpg failed 12 times in a row, .*: Could not connect"):
        places[0].read()


def test_a_read_that_breaks_is_tried_again_and_rejects_no_photo(tmp_path, monkeypatch):
    memory = fsspec.filesystem("memory")
    put(memory, "/breaking", {"folder/x.jpg": b"photo", "x.zip": zip_bytes({"x.jpg": b"photo"})})
    urls = ["memory://breaking/folder", "memory://breaking/x.zip"]
    places = [open_source([url], tmp_path, 1).locate(["x"], None)[0] for url in urls]
    cat_file, tries = type(memory).cat_file, itertools.count()

    def breaking(self: AbstractFileSystem, path: str, **options: int) -> bytes:
        if next(tries) % 3:
            raise ConnectionError("reset by peer")
        return cat_file(self, path, **options)

    monkeypatch.setattr(type(memory), "cat_file", breaking)
    monkeypatch.setattr("arcshard.urls.FIRST_PAUSE", 0.001)
    for place in places:
        next(tries)  # the read begins with two failures
        assert place.read() == b"photo"


def test_a_bucket_that_nobody_may_list_needs_no_md5_files(tmp_path, monkeypatch):
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/closed/photos.tar", tar_bytes(NAMED))
    cat_file = type(memory).cat_file

    def closed(self: AbstractFileSystem, path: str, **options: int) -> bytes:
        if not self.exists(path):
            raise PermissionError("Access Denied")
        return cat_file(self, path, **options)

    monkeypatch.setattr(type(memory), "cat_file", closed)
    source = open_source(["memory://closed/photos.tar"], tmp_path, 1)
    assert [place.read() for place in source.locate(KEYS, None)] == list(PHOTOS.values())


def test_other_file_systems(tmp_path):
    memory = fsspec.filesystem("memory")
    put(memory, "/photos", NAMED)
    memory.pipe_file("/photos.tar", tar_bytes(NAMED))
    Path(tmp_path / "photos.zip").write_bytes(zip_bytes(NAMED))
    for url in ("memory://photos", "memory://photos.tar", f"file://{tmp_path}/photos.zip"):
        source = open_source([url], tmp_path / "cache", 1)
        assert [place.read() for place in source.locate(KEYS, None)] == list(PHOTOS.values())
        assert [place.read() for place in source.locate(KEYS, list(NAMED))] == list(PHOTOS.values())
