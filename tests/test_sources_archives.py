"""Tars and zips of every kind give the photos that they hold, and damaged or hostile ones never a wrong one."""
import io
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import preprocess.sources.index
from arcshard.console import UserError
from preprocess.sources import PhotoSource, open_source
from tests.photo_archives import ARCHIVES, KEYS, NAMED, PHOTOS, TARS, kaggle_path, outcome, tar_bytes, zip_bytes


@contextmanager
def opened(data: bytes) -> Iterator[PhotoSource]:
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "archive"
        archive.write_bytes(data)
        yield open_source([str(archive)], Path(folder) / "cache", workers=1)


def by_key(data: bytes, *keys: str) -> list[bytes | str]:
    """What an archive gives for those keys: bytes, or the reason of the rejection."""
    with opened(data) as source:
        return [outcome(place) for place in source.locate(keys, None)]


def by_path(data: bytes, *paths: str) -> list[bytes | str]:
    with opened(data) as source:
        return [outcome(place) for place in source.locate(["k"] * len(paths), paths)]


def members(data: bytes) -> dict[str, bytes]:
    """Names and bytes of the regular files as Python's own readers see them, the first of each name."""
    found: dict[str, bytes] = {}
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as z:
            for info in z.infolist():
                if not info.is_dir():
                    found.setdefault(info.filename, z.read(info))
    else:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isreg() else None
                if file is not None:
                    found.setdefault(member.name, file.read())
    return found


@pytest.mark.parametrize("kind", ARCHIVES)
def test_every_photo_is_found_by_key_and_by_path(kind):
    data = ARCHIVES[kind]
    files = {name: photo for name, photo in members(data).items() if name.endswith(".jpg")}
    assert by_key(data, *KEYS, "nowhere") == [*PHOTOS.values(), "file not found"]
    assert by_path(data, *files, KEYS[0]) == [*files.values(), "file not found"]


PARTS = ["a", "b", "..", ".", "", "é", "x.jpg", "y.jpg", "x.JPG", "ж" * 70, "c\\d", "..x", " "]
PATH = st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map("/".join).filter(bool)
NAME = st.one_of(PATH, st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda n: n[0] != "\0"))


@given(st.lists(NAME, min_size=1, max_size=6, unique=True), st.sampled_from(["gnu", "pax", "zip"]))
@settings(max_examples=100)
def test_wild_names_are_found_as_they_are_or_not_at_all(names, kind):
    files = {name: f"{number}".encode() for number, name in enumerate(names)}
    data = zip_bytes(files) if kind == "zip" else tar_bytes(files, TARS[kind])
    safe: dict[str, bytes] = {}
    for raw, content in members(data).items():
        name = raw.replace("\\", "/")
        if not name.startswith("/") and ".." not in name.split("/") and "\0" not in name:
            safe.setdefault(str(PurePosixPath(name)), content)
    stems = [PurePosixPath(name).name.removesuffix(".jpg") for name in safe if name.endswith(".jpg")]
    with opened(data) as source:
        for place, content in zip(source.locate(["k"] * len(safe), list(safe)), safe.values()):
            assert place.read() == content
        for place in source.locate(["k"] * len(names), names):
            assert outcome(place) in [*safe.values(), "file not found", 'path has ".."',
                                      "path is absolute, and not below a folder of --images"]
        for place, stem in zip(source.locate(stems, None), stems):
            assert place.read() == next(safe[name] for name in safe if PurePosixPath(name).name == f"{stem}.jpg")


def refusal(data: bytes, keys: list[str], paths: list[str] | None = None) -> str:
    """The sentence that refuses an archive with two photos for one of those; "" if there are none."""
    with opened(data) as source:
        try:
            source.refuse_ambiguous(keys, paths)
        except UserError as error:
            return str(error)
    return ""


@given(st.dictionaries(PATH, st.sampled_from([b"1", b"2", b"22"]), min_size=1, max_size=6),
       st.sampled_from(["gnu", "zip"]), st.sampled_from(["x", "y"]))
@settings(max_examples=100)
def test_an_archive_with_two_photos_for_one_id_is_refused(files, kind, key):
    data = zip_bytes(files) if kind == "zip" else tar_bytes(files, TARS[kind])
    of_key = []
    for name, content in members(data).items():
        path = PurePosixPath(name.replace("\\", "/"))
        if path.name == f"{key}.jpg" and not path.is_absolute() and ".." not in path.parts:
            of_key.append(content)
    ambiguous = len({*of_key} if kind == "zip" else of_key) > 1
    assert bool(refusal(data, [key, "other"])) == ambiguous


def test_two_members_for_one_photo_are_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(preprocess.sources.index, "BATCH", 1)
    monkeypatch.setattr(preprocess.sources.index, "CHUNK", 1)
    same = zip_bytes({"a/x.jpg": b"1", "b/x.jpg": b"1", "y.jpg": b"2"})
    assert refusal(same, ["x", "y"]) == "" and by_key(same, "x") == [b"1"]
    several = {"thumbs/x.jpg": b"1", "train\\x.jpg": b"2", "y.jpg": b"3"}
    twice = tar_bytes({"x.jpg": b"1"})[:1024] + tar_bytes({"x.jpg": b"1"})
    renamed = zip_bytes({"x.jpg": b"1", "y.jpg": b"2"}).replace(b"y.jpg", b"x.jpg")
    for data in (tar_bytes(several), zip_bytes(several)):
        sentence = refusal(data, ["y", "x"])
        assert "two members x.jpg (thumbs/x.jpg, train\\x.jpg; 1 such): set the table's column" in sentence
        assert refusal(data, ["y"]) == refusal(data, ["x"], ["train\\x.jpg"]) == ""
        assert by_path(data, "train/x.jpg", "thumbs\\x.jpg") == [b"2", b"1"]
    for data in (twice, renamed):
        for sentence in (refusal(data, ["x"]), refusal(data, ["k"], ["./x.jpg"])):
            assert "two members x.jpg (x.jpg, x.jpg; 1 such): make it anew" in sentence


def test_the_first_of_several_archives_decides_whether_a_photo_is_ambiguous(tmp_path):
    (tmp_path / "one.zip").write_bytes(zip_bytes({"x.jpg": b"1"}))
    (tmp_path / "two.zip").write_bytes(zip_bytes({"a/x.jpg": b"2", "b/x.jpg": b"3"}))
    archives = [str(tmp_path / "one.zip"), str(tmp_path / "two.zip")]
    open_source(archives, tmp_path / "cache", 1).refuse_ambiguous(["x"], None)
    with pytest.raises(UserError, match=r"two\.zip has two members x\.jpg \(a/x\.jpg, b/x\.jpg; "):
        open_source(archives[::-1], tmp_path / "cache", 1).refuse_ambiguous(["x"], None)


def test_an_archive_of_archives_is_refused_and_one_among_photos_is_noted(capfd):
    for name in ("train.zip", "a/b.TAR.gz", "x.tgz", "x.7z"):
        for data in (zip_bytes({"read.me": b"", name: b"photos"}), tar_bytes({name: b"photos"})):
            with pytest.raises(UserError, match=rf"/archive holds {name} instead of photos: unpack it"):
                by_key(data, "x")
        capfd.readouterr()
        assert by_key(zip_bytes({name: b"photos", "x.JPEG": b"", "x.jpg": b"1"}), "x") == [b"1"]
        assert f"/archive also holds {name}, in which no photo is looked for" in capfd.readouterr().err
    assert by_key(zip_bytes({"labels.csv.gz": b""}), "x") == ["file not found"]


def test_links_devices_and_folders_are_never_photos():
    out = io.BytesIO()
    kinds = {"symbolic": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "character": tarfile.CHRTYPE,
             "block": tarfile.BLKTYPE, "folder": tarfile.DIRTYPE, "pipe": tarfile.FIFOTYPE}
    with tarfile.open(fileobj=out, mode="w") as tar:
        photo = tarfile.TarInfo("photo.jpg")
        photo.size = 5
        tar.addfile(photo, io.BytesIO(b"photo"))
        for name, kind in kinds.items():
            member = tarfile.TarInfo(f"{name}.jpg")
            member.type, member.linkname = kind, "photo.jpg"
            tar.addfile(member)
    assert by_key(out.getvalue(), *kinds, "photo") == ["file not found"] * len(kinds) + [b"photo"]

    out = io.BytesIO()
    modes = {"link": stat.S_IFLNK, "character": stat.S_IFCHR, "folder": stat.S_IFDIR, "pipe": stat.S_IFIFO,
             "file": stat.S_IFREG, "from windows": 0}
    with zipfile.ZipFile(out, "w") as z:
        for name, mode in modes.items():
            entry = zipfile.ZipInfo(f"{name}.jpg")
            entry.external_attr = (mode | 0o644 if mode else 0) << 16
            z.writestr(entry, b"photo.jpg")
        z.mkdir("made.jpg")
    assert by_key(out.getvalue(), "made", *modes) == ["file not found"] * 5 + [b"photo.jpg"] * 2


def test_sparse_files_of_a_tar_are_no_photos_and_do_not_hide_the_next():
    old = tarfile.TarInfo("sparse.jpg")
    old.type, old.size = tarfile.GNUTYPE_SPARSE, 5
    new = tarfile.TarInfo("sparse.jpg")  # as GNU tar --posix writes it: a map of the holes, then the bytes between them
    new.size, new.pax_headers = 1024, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "5"}
    for sparse in (old.tobuf(tarfile.GNU_FORMAT) + b"bytes".ljust(512, b"\0"),
                   new.tobuf(tarfile.PAX_FORMAT) + b"1\n0\n5\n".ljust(512, b"\0") + b"bytes".ljust(512, b"\0")):
        assert by_key(sparse + tar_bytes({"x.jpg": b"photo"}), "sparse", "x") == ["file not found", b"photo"]


def encrypted(data: bytes) -> bytes:
    """A zip of one member, marked as encrypted."""
    locked = bytearray(data)
    locked[6] |= 1
    locked[data.index(b"PK\1\2") + 8] |= 1
    return bytes(locked)


def test_encrypted_members_and_unknown_methods_are_rejected_with_the_reason():
    data = encrypted(zip_bytes({"x.jpg": b"photo"}))
    assert by_key(data, "x", "y") == ["is encrypted: unpack the zip with its password", "file not found"]
    bzip2 = zip_bytes({"x.jpg": b"photo" * 100}, zipfile.ZIP_BZIP2)
    assert by_key(bzip2, "x") == ["unreadable: compression method 12 of a zip is neither stored nor deflated"]


def test_an_encrypted_member_hides_no_photo_of_another_source(tmp_path):
    (tmp_path / "locked.zip").write_bytes(encrypted(zip_bytes({"x.jpg": b"1"})))
    (tmp_path / "open.zip").write_bytes(zip_bytes({"x.jpg": b"2"}))
    (tmp_path / "x.jpg").write_bytes(b"3")
    for other, photo in ((tmp_path / "open.zip", b"2"), (tmp_path, b"3")):
        source = open_source([str(tmp_path / "locked.zip"), str(other)], tmp_path / "cache", 1)
        source.refuse_ambiguous(["x"], None)
        assert [outcome(place) for place in source.locate(["x"], None)] == [photo]


def test_a_photo_that_claims_more_than_memory_is_rejected_before_it_is_read(monkeypatch):
    monkeypatch.setattr("preprocess.sources.photo_source.MAX_PHOTO", 100)
    files = {"x.jpg": bytes(101), "y.jpg": bytes(100)}
    for data in (tar_bytes(files), zip_bytes(files, zipfile.ZIP_DEFLATED)):
        assert by_key(data, "x") == ["larger than 256 MiB"]
    assert by_key(zip_bytes(files, zipfile.ZIP_DEFLATED), "y") == [bytes(100)]


def test_names_with_one_hash_give_no_wrong_photo(monkeypatch):
    for module in (preprocess.sources.index, preprocess.sources.index):
        monkeypatch.setattr(module, "name_hash", lambda name: 1)
    for kind in ("ustar", "stored"):
        for found in (by_key(ARCHIVES[kind], *KEYS), by_path(ARCHIVES[kind], *NAMED)):
            assert found[0] == PHOTOS[KEYS[0]]
            name = kaggle_path(KEYS[0])
            assert found[1:] == [f"unreadable: the archive has {name!r} where it was indexed"] * (len(KEYS) - 1)


TAR_KINDS = (*TARS, "gnu long", "pax long", "global", "dot")
MENDS = (": fetch it again", ": check --images", ": join them (zip -s 0)")
DAMAGED = [kind for kind, data in ARCHIVES.items() if len(data) < 1 << 16]


def assert_no_wrong_photo(kind: str, data: bytes, damaged: int | None = None) -> None:
    """Right or rejected, each photo; but a tar has no checksum of a photo whose own byte was damaged."""
    try:
        found = by_key(data, *KEYS)
    except UserError as error:
        assert str(error).endswith(MENDS), error
        return
    for (key, photo), result in zip(PHOTOS.items(), found):
        start = ARCHIVES[kind].find(photo) if kind in TAR_KINDS else -1
        own_byte = damaged is not None and 0 <= damaged - start < len(photo) and start >= 0
        assert isinstance(result, str) or result == photo or own_byte, key


@given(st.sampled_from(DAMAGED), st.integers(0), st.integers(1, 255))
@settings(max_examples=400)
def test_a_flipped_byte_gives_no_wrong_photo(kind, position, flip):
    data = bytearray(ARCHIVES[kind])
    data[position % len(data)] ^= flip
    assert_no_wrong_photo(kind, bytes(data), position % len(data))


@given(st.sampled_from(DAMAGED), st.integers(0), st.binary(min_size=1, max_size=600))
@settings(max_examples=100)
def test_overwritten_bytes_give_no_wrong_photo_of_a_zip_and_no_traceback_of_a_tar(kind, position, junk):
    data, position = ARCHIVES[kind], position % len(ARCHIVES[kind])
    damaged = data[:position] + junk + data[position + len(junk):]
    if kind in ("stored", "deflated", "streamed"):
        assert_no_wrong_photo(kind, damaged)
    else:
        with suppress(UserError):
            by_key(damaged, *KEYS)


def test_no_flipped_bit_in_the_headers_of_a_zip_gives_a_wrong_photo():
    data = ARCHIVES["deflated"]
    directory = data.index(b"PK\1\2")
    for position in [*range(80), *range(directory, directory + 90), *range(len(data) - 22, len(data))]:
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        assert_no_wrong_photo("deflated", bytes(flipped))


@given(st.sampled_from(DAMAGED), st.integers(0))
@settings(max_examples=100)
def test_a_cut_off_archive_is_refused(kind, size):
    data = ARCHIVES[kind]
    end = data.rindex(PHOTOS[KEYS[-1]][-6:]) + 6 if kind in TAR_KINDS else len(data)
    with pytest.raises(UserError, match=r": (fetch it again|check --images)$"):
        by_key(data[:size % end], *KEYS)


@given(st.binary(max_size=3000), st.sampled_from([b"", b"PK\3\4", b"PK\5\6"]))
def test_wild_bytes_are_refused(data, magic):
    with pytest.raises(UserError, match=r"/archive (is|has|ends) .*: (fetch|check|join|decompress) "):
        by_key(magic + data, *KEYS)


def test_a_hole_of_zeros_in_a_tar_is_not_taken_for_its_end():
    data = bytearray(ARCHIVES["ustar"])
    data[1024:1536] = bytes(512)
    with pytest.raises(UserError, match="has more data behind its end mark at byte 1,024"):
        by_key(bytes(data), *KEYS)


def test_a_damaged_tar_header_is_not_taken_for_the_end():
    data = bytearray(ARCHIVES["ustar"])
    data[1024 + 3] ^= 1
    with pytest.raises(UserError, match=r"has a damaged header at byte 1,024 \(bad checksum\): fetch it again"):
        by_key(bytes(data), *KEYS)


def test_headers_made_to_break_a_parser_are_damage():
    negative = tarfile.TarInfo("x.jpg")
    negative.size = -1
    endless = tarfile.TarInfo("././@LongLink")
    endless.type, endless.size = tarfile.GNUTYPE_LONGNAME, 1
    links = (endless.tobuf(tarfile.GNU_FORMAT) + bytes(512)) * 2000
    for header in (negative.tobuf(tarfile.GNU_FORMAT), links):
        with pytest.raises(UserError, match=r"has a damaged header at byte 0 \((negative size|maximum recursion)"):
            by_key(header + ARCHIVES["ustar"], "x")


def test_one_part_of_a_split_zip_is_refused():
    data = bytearray(ARCHIVES["stored"])
    data[-18] = 1
    with pytest.raises(UserError, match=r"is one part of several: join them \(zip -s 0\)"):
        by_key(bytes(data), *KEYS)
