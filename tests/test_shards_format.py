"""A shard is a plain ustar tar that webdataset, wds2idx and DALI read as we do."""
import gc
import hashlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from nvidia.dali import fn, pipeline_def
from PIL import Image

from preprocess.engine import Engine
from preprocess.packing.options import PackOptions
from preprocess.packing.pack import pack
from shards import Dataset
from shards.entry import HashingStream
from shards.format import INDEX_DTYPE, KEY_PATTERN, TAR_BLOCK, idx_text
from shards.writer import Sample, write_tar

LONGEST = "z" * 96


def photo(seed: int, width: int = 48, height: int = 32) -> bytes:
    """A small JPEG of noise in normal form."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=90, subsampling="4:2:0")
    return out.getvalue()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    """25 photos in three shards; one key as long as a key may be, one of a single character."""
    folder = tmp_path_factory.mktemp("format")
    keys = [LONGEST, "0", *(f"k{number:02}_-" for number in range(23))]
    (folder / "photos").mkdir()
    for number, key in enumerate(keys):
        (folder / "photos" / f"{key}.jpg").write_bytes(photo(number, 40 + number))
    rows = [(key, f"{number % 12}", number % 12, "train") for number, key in enumerate(keys)]
    samples = pd.DataFrame(rows, columns=["id", "landmark_id", "label", "split"])
    pack(samples, [folder / "photos"], folder / "out", PackOptions(shard_size=10), Engine())
    return Dataset(folder / "out")


def tars(dataset: Dataset) -> list[Path]:
    return sorted(dataset.path.glob("*.tar"))


def keys_bytes_labels(dataset: Dataset) -> list[tuple[str, bytes, int]]:
    return [(dataset.index["key"][i].decode(), dataset.read(i), int(dataset.labels[i]))
            for i in range(len(dataset))]


def test_tars_hold_plain_ustar_headers_only(dataset):
    """Walks the raw blocks, since tarfile hides PAX and GNU headers. Two members a sample, dated 0."""
    names = []
    for path in tars(dataset):
        data, at = path.read_bytes(), 0
        while any(data[at:at + TAR_BLOCK]):
            assert data[at + 257:at + 265] == b"ustar\x0000" and data[at + 156:at + 157] == b"0"
            member = tarfile.TarInfo.frombuf(data[at:at + TAR_BLOCK], "ascii", "strict")
            assert member.mtime == 0
            names.append(member.name)
            at += TAR_BLOCK + -(-member.size // TAR_BLOCK) * TAR_BLOCK
    expected = [f"{key}.{ext}" for key, _, _ in keys_bytes_labels(dataset) for ext in ("jpg", "cls")]
    assert names == expected and len(names) == 50


def test_idx_is_what_wds2idx_writes(dataset, tmp_path):
    assert tars(dataset)
    for path in tars(dataset):
        command = [str(Path(sys.executable).with_name("wds2idx")), str(path), str(tmp_path / "x.idx")]
        subprocess.run(command, check=True, capture_output=True)
        assert path.with_suffix(".idx").read_bytes() == (tmp_path / "x.idx").read_bytes()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_same(dataset):
    """webdataset 1.0.2 leaves its files open, hence the collection before the filter ends."""
    read = webdataset.WebDataset([str(path) for path in tars(dataset)], shardshuffle=False)
    found = [(sample["__key__"], sample["jpg"], int(sample["cls"])) for sample in read]
    del read
    gc.collect()
    assert found == keys_bytes_labels(dataset)


@pytest.mark.parametrize("with_idx", [True, False])
def test_dali_reads_the_same(dataset, with_idx):
    """DALI's own reader, with our index and with the one that it makes itself."""
    paths = [str(path) for path in tars(dataset)]
    index_paths = [str(path.with_suffix(".idx")) for path in tars(dataset)] if with_idx else None

    @pipeline_def(batch_size=5, num_threads=1, device_id=None, prefetch_queue_depth=1)
    def pipeline():
        photo, label = fn.readers.webdataset(paths=paths, index_paths=index_paths, ext=["jpg", "cls"],
                                             missing_component_behavior="error", name="reader")
        return photo, label

    reader = pipeline()
    assert reader.epoch_size("reader") == len(dataset)
    found = []
    for _ in range(5):
        photos, labels = reader.run()
        for i in range(5):
            found.append((bytes(photos.at(i)), int(bytes(labels.at(i)))))
    assert found == [(data, label) for _, data, label in keys_bytes_labels(dataset)]


samples = st.lists(st.tuples(st.binary(min_size=1, max_size=1600), st.integers(-1, 10**8)), min_size=1,
                   max_size=6)


@settings(max_examples=60)
@given(samples)
def test_rows_and_idx_against_tarfile(contents):
    """Offsets and sizes of any bytes, 512-byte boundaries included, are those that tarfile finds."""
    stream = io.BytesIO()
    rows, labels = write_tar(stream, [Sample(f"k{i}", label, data, 7, 9)
                                      for i, (data, label) in enumerate(contents)])
    members = tarfile.open(fileobj=io.BytesIO(stream.getvalue())).getmembers()
    photos, classes = members[::2], members[1::2]
    assert rows["offset"].tolist() == [member.offset_data for member in photos]
    assert rows["size"].tolist() == [member.size for member in photos]
    assert labels.tolist() == [label for _, label in contents]
    lines = [f"jpg {p.offset_data} {p.size} {p.name} cls {c.offset_data} {c.size} {c.name}"
             for p, c in zip(photos, classes, strict=True)]
    assert idx_text(rows, labels) == "\n".join([f"v1.2 {len(contents)}", *lines, ""])


def webdataset_tar(contents: list[tuple[str, bytes, int]]) -> bytes:
    """What webdataset itself writes of (key, photo, label), with USTAR headers as its format argument promises."""
    stream = io.BytesIO()
    with webdataset.TarWriter(stream, encoder=False, mtime=0, compress=False) as tar:
        tar.tarstream.format = tarfile.USTAR_FORMAT  # TarWriter 1.0.2 does not hand it to tarfile
        for key, data, label in contents:
            # One call a member: within one call TarWriter sorts by extension, which would put .cls first.
            tar.write({"__key__": key, "jpg": data})
            tar.write({"__key__": key, "cls": str(label).encode()})
    return stream.getvalue()


sizes = st.one_of(st.integers(0, 1100), st.sampled_from([511, 512, 513, 8191, 10240, 20000]))
named = st.tuples(st.from_regex(KEY_PATTERN, fullmatch=True), sizes, st.integers(-1, 2**31 - 1))


@settings(max_examples=200)
@given(st.lists(named, max_size=12, unique_by=lambda sample: sample[0]))
def test_bytes_are_those_of_webdataset(contents):
    """The writer uses the standard library; any keys, sizes and labels give what TarWriter gives."""
    photos = [(key, bytes([len(key)]) * size, label) for key, size, label in contents]
    stream = io.BytesIO()
    hashing = HashingStream(stream)
    write_tar(hashing, [Sample(key, label, data, 1, 1) for key, data, label in photos])
    assert stream.getvalue() == webdataset_tar(photos)
    assert hashing.entry == {"size": len(stream.getvalue()), "sha256": hashlib.sha256(stream.getvalue()).hexdigest()}


@pytest.mark.parametrize("key", ["", "a.b", "a b", "A", "ä", "a/b", "a\n", "z" * 97])
def test_keys_that_readers_get_wrong_are_refused(key):
    with pytest.raises(ValueError, match="the key .* is not 1 to 96 characters of"):
        write_tar(io.BytesIO(), [Sample(key, 0, b"x", 1, 1)])


def test_a_key_comes_once():
    with pytest.raises(ValueError, match="the key 'a' is used already"):
        write_tar(io.BytesIO(), [Sample("a", 0, b"x", 1, 1), Sample("a", 0, b"y", 1, 1)])


def test_index_is_124_packed_bytes_a_row():
    """Other tools map this file: neither order nor width of its fields may drift."""
    assert INDEX_DTYPE.itemsize == 124
    assert [(name, INDEX_DTYPE[name].str) for name in INDEX_DTYPE.names] == [
        ("shard", "<i4"), ("offset", "<i8"), ("size", "<i4"), ("width", "<i4"), ("height", "<i4"),
        ("crc32", "<u4"), ("key", "|S96")]
