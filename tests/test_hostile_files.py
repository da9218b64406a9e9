"""Files that someone wrote to do harm: nothing in them is executed, and each is refused in one sentence, soon.

SOURCES holds that whoever reads such a file does so through the readers that are tried here.
"""
import io
import json
import os
import pickle
import random
import re
import resource
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

import report
from arcshard import checkpoint
from arcshard.checkpoint import Checkpoint, Weights
from arcshard.console import UserError, run
from arcshard.presets import read_preset
from arcshard.untrusted import parse_yaml, read_array
from loader import View
from model import ModelConfig, build_embedder
from model.weights import make_backbone
from predict import best_five
from preprocess.dedup import hashes
from preprocess.fetching.served import read_record
from preprocess.images.decode import to_rgb
from preprocess.packing.existing import ExistingDataset
from preprocess.packing.output import LocalOutput
from preprocess.packing.publish import finish, kept_shard
from preprocess.samples.classes import read_names
from preprocess.samples.sample_table import read_samples
from preprocess.sources import index
from retrieval import Embeddings, read_pipeline
from retrieval.benchmarks import read_gnd, read_relevant, read_solution
from retrieval.reranker import Reranker
from retrieval.store import Parts, Provenance
from retrieval.submission import read_sample
from retrieval.whitening import Whitening
from shards import Dataset
from shards.adopt import read_classes
from shards.dataset import splits
from shards.format import INDEX_DTYPE
from tests import icc_profiles
from training import log

ROOT = Path(__file__).parent.parent
SECONDS = 20  # of any refusal: each takes below one on an idle core
MEMORY = 2**30  # bytes of address space beyond those that the test began with


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Fail what takes long, or gigabytes."""
    began, before = time.monotonic(), resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
    assert time.monotonic() - began < SECONDS


# Pickles that leave a folder behind when someone loads them.


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.marker),)


def saved(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def traps(marker: Path) -> dict[str, bytes]:
    """Files by kind, each a trap."""
    trap, array = Trap(marker), io.BytesIO()
    np.save(array, np.array([trap], object), allow_pickle=True)
    npz = io.BytesIO()
    np.savez(npz, allow_pickle=True, embeddings=np.array([trap], object))
    states = {"format": 2, "config": {}, "embedder": {}, "head": {}, "ema": None, "stages": {}}
    return {"npy": array.getvalue(), "npz": npz.getvalue(), "torch": saved(trap),
            **{f"pickle {protocol}": pickle.dumps(trap, protocol) for protocol in range(6)},
            **{f"torch {name}": saved(states | {name: {"state": trap}})
               for name in ("config", "embedder", "optimizer", "loader")}}


KINDS = [*traps(Path("m"))]


def test_the_traps_work(tmp_path):
    for kind, data in traps(tmp_path / "m").items():
        if kind.startswith("pickle"):
            pickle.loads(data)
        elif kind.startswith("torch"):
            torch.load(io.BytesIO(data), weights_only=False)
        else:
            found = np.load(io.BytesIO(data), allow_pickle=True)
            assert kind == "npy" or len(found["embeddings"])
        (tmp_path / "m").rmdir()


# Every file that is read, by the function that reads it.


def in_store(name: str) -> Callable[[Path, bytes], Any]:
    """Plant a file into a store whose digests are right."""
    def plant(folder: Path, data: bytes) -> Any:
        vectors = np.eye(3, 4, dtype=np.float32)
        Embeddings(vectors, ["a", "b", "c"], np.arange(3), ["x", "y", ""], Provenance("m", "d", "train")).save(folder)
        (folder / name).write_bytes(data)
        if name != "meta.json":
            meta = json.loads((folder / "meta.json").read_text())
            meta["files"][name] = {"size": len(data), "sha256": checkpoint.sha256(folder / name)}
            (folder / "meta.json").write_text(json.dumps(meta))
        return Embeddings.load(folder)
    return plant


def in_dataset(name: str, read: Callable[[Dataset], Any]) -> Callable[[Path, bytes], Any]:
    def plant(folder: Path, data: bytes) -> Any:
        entry = {"size": 1, "sha256": "0" * 64}
        (folder / "dataset.json").write_text(json.dumps({
            "format_version": 1, "num_classes": 2, "packing": {}, "splits": {"train": {"samples": 3, "shards": 1}},
            "files": {"train-000000.tar": entry}}))
        (folder / "train.labels.npy").write_bytes(array(np.zeros(3, "<i4")))
        (folder / name).write_bytes(data)
        return read(Dataset(folder))
    return plant


def at(name: str, read: Callable[[Path], Any]) -> Callable[[Path, bytes], Any]:
    """Write the file, then read it."""
    def plant(folder: Path, data: bytes) -> Any:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return read(path)
    return plant


def array(value: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, value)
    return stream.getvalue()


def part_of_store(folder: Path, data: bytes) -> Any:
    parts = Parts(folder, Provenance("m", "d", "train"), 3, "float32")
    parts.begin()
    (folder / "parts/000000.npy").write_bytes(data)
    return list(parts.blocks())


def kept_rows(folder: Path, data: bytes) -> Any:
    from preprocess.packing.publish import PackedShard, _rows
    name = folder / ".packing/train-000000/rows.npy"
    name.parent.mkdir(parents=True)
    name.write_bytes(data)
    return _rows(LocalOutput(str(folder)), 0, PackedShard("train", "train-000000", {}))


def appended_to(folder: Path, data: bytes) -> Any:
    (folder / "dataset.json").write_bytes(data)
    return ExistingDataset(LocalOutput(str(folder)))


ARRAYS = {
    "embeddings.npy": in_store("embeddings.npy"), "keys.npy": in_store("keys.npy"),
    "labels.npy": in_store("labels.npy"), "landmark_ids.npy": in_store("landmark_ids.npy"),
    "part of a store": part_of_store,
    "whitening": at("w.npy", Whitening.load),
    "index of a dataset": in_dataset("train.index.npy", lambda dataset: dataset.index),
    "labels of a dataset": in_dataset("train.labels.npy", lambda dataset: dataset.labels),
    "index rows of a shard": kept_rows,
    "hashes of duplicates": at("h/1.npy", lambda path: hashes.load(path.parent)),
    "index of an archive": at("i.npy", lambda path: index.sorted_rows([path], "base")),
    "sorted index of archives": at(f"by-base-{index.digest('i.npy')}.npy",
                                   lambda path: index.sorted_rows([path.with_name("i.npy")], "base")),
}
JSONS = {
    "dataset.json": at("dataset.json", lambda path: splits(path.parent)),
    "dataset.json of --append": appended_to,
    "meta.json": in_store("meta.json"),
    "re-ranker": at("r.json", Reranker.load),
    "eval.json": at("eval.json", report.read_scores),
    "part.json": at(".packing/s/part.json", lambda path: kept_shard(LocalOutput(str(path.parents[2])), "train", "s")),
    "publish.json": at(".packing/publish.json", lambda path: finish(LocalOutput(str(path.parents[1])))),
}
YAMLS = {
    "preset": at("p.yaml", read_preset),
    "base of a preset": at("b.yaml", lambda path: at("p.yaml", read_preset)(path.parent, b"config: b.yaml")),
    "pipeline": at("p.yaml", read_pipeline),
}
TABLES = {
    "classes.csv": in_dataset("classes.csv", lambda dataset: dataset.landmark_ids),
    "rejected.csv": in_dataset("rejected.csv", lambda dataset: dataset.rejected()),
    "truths.csv": in_dataset("train.truths.csv", lambda dataset: dataset.truths()),
    "samples.csv": at("samples.csv", read_samples),
    "samples.parquet": at("samples.parquet", read_samples),
    "classes to adopt": at("classes.csv", read_classes),
    "names": at("names.csv", read_names),
    "sample submission": at("sample.csv", read_sample),
    "solution of a benchmark": at("s.csv", lambda path: read_solution(path, "images")),
    "relevant photos": at("r.csv", read_relevant),
}
TENSORS = {
    "checkpoint.pt": at("checkpoint.pt", lambda path: checkpoint.load(path.parent)),
    "checkpoint-best.pt": at("checkpoint-best.pt", lambda path: checkpoint.load(path.parent, path.name)),
    **{f"weights{suffix}": at(f"w{suffix}", lambda path: make_backbone("test_efficientnet", str(path)))
       for suffix in (".pt", ".pth", ".bin", ".safetensors", ".npz", ".npy")},
}
PICKLES = {"ground truth of a benchmark": at("gnd.pkl", read_gnd)}
READERS = ARRAYS | JSONS | YAMLS | TABLES | TENSORS | PICKLES


def refused(read: Callable[[], Any], context: str) -> None:
    """It raises a UserError of one sentence, not too long; the parsers of files that are no user's raise ValueError."""
    try:
        found = read()
    except (UserError, ValueError) as error:
        said = str(error)
        assert len(said) < 1000 and said.count("\n") == 0, (context, said)
        return
    raise AssertionError(f"{context}: not refused, but read as {found!r:.80}")


@pytest.mark.parametrize("reader", READERS)
def test_no_pickle_is_executed(reader, tmp_path):
    marker = tmp_path / "executed"
    for kind, data in traps(marker).items():
        folder = tmp_path / kind
        folder.mkdir()
        refused(lambda: READERS[reader](folder, data), f"{reader}: {kind}")
        assert not marker.exists(), f"{kind} was executed"


def test_logs_and_records_leave_out_what_they_cannot_read(tmp_path, capsys):
    marker = tmp_path / "executed"
    for data in [*traps(marker).values(), *JSON.values()]:
        (tmp_path / log.NAME).write_bytes(data + b"\n")
        (tmp_path / "z.part.json").write_bytes(data)
        assert log.read(tmp_path) == [] and read_record(tmp_path / "z.part.json") is None
        assert all(line.isprintable() for line in capsys.readouterr().err.split("\n"))
        parts = Parts(tmp_path, Provenance("m", "d", "train"), 3, "float32")
        at("parts/plan.json", lambda path: None)(tmp_path, data)
        parts.begin()
        assert parts.missing() == [0]
    assert not marker.exists()


# .npy


def npy(descr: Any, shape: Any, fortran: bool = False, data: bytes = b"x" * 48) -> bytes:
    return headed(repr({"descr": descr, "fortran_order": fortran, "shape": shape}).encode() + b"\n", data)


def headed(header: bytes, data: bytes = b"x" * 48, version: int = 1, length: int | None = None) -> bytes:
    size = struct.pack("<H" if version == 1 else "<I", len(header) if length is None else length)
    return b"\x93NUMPY" + bytes((version, 0)) + size + header + data


NPY = {
    "objects": npy("|O", (1,)), "negative": npy("<f4", (-3, -4)), "too long": npy("<f4", (2**40, 4)),
    "overflowing": npy("<f4", (2**31, 2**31, 2**31)), "beyond 64 bits": npy("<i8", (10**30,)),
    "texts of nothing": npy("|S0", (2**60,)), "bytes of nothing": npy("|V0", (2**60,)),
    "long header": headed(b"{}", length=60000), "longest header": headed(b"{}", version=2, length=2**32 - 1),
    "other version": headed(b"{}", version=9), "fortran": npy("<f4", (3, 4), True), "a field twice": npy(
        [("a", "<i4"), ("a", "<i4")], (6,)), "offset beyond the item": npy(
        {"names": ["a"], "formats": ["<i4"], "offsets": [1000], "itemsize": 8}, (6,)),
    "wide item": npy(("<i4", (10**9, 10**9)), (1,)), "long texts": npy("<U1000000000", (3,)),
    "minus": headed(b"-" * 9000 + b"1\n"), "brackets": headed(b"(" * 9000 + b"\n"), "call": headed(b"exit()\n"),
    "true": npy("<i8", (True,)), "empty": b"", "zip": b"PK\3\4" + bytes(99), "text": b"no array\n",
    "huge digits": headed(b"{'shape': (" + b"9" * 5000 + b",)}\n"),
}


@pytest.mark.parametrize("reader", ARRAYS)
def test_arrays_of_other_forms_are_refused(reader, tmp_path):
    for kind, data in NPY.items():
        if reader in ("embeddings.npy", "part of a store") and kind == "fortran":
            continue  # its layout alone is another
        folder = tmp_path / kind
        folder.mkdir()
        refused(lambda: READERS[reader](folder, data), f"{reader}: {kind}")


def test_arrays_in_fortran_order_are_read_right(tmp_path):
    value = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4))
    (tmp_path / "a.npy").write_bytes(array(value))
    for mmap in (False, True):
        np.testing.assert_array_equal(read_array(tmp_path / "a.npy", value.dtype, ndim=2, mmap=mmap), value)


# JSON

DEEP = 100_000
JSON = {
    "deep lists": b"[" * DEEP, "deep objects": b'{"a":' * DEEP, "deep and whole": b"[" * DEEP + b"]" * DEEP,
    "long number": b'{"format": ' + b"9" * 5000 + b"}", "not UTF-8": b'{"format": "\xff"}', "NaN": b"NaN",
    "twice": b'{"format": 1, "format": 2}', "nothing": b"", "null": b"null", "list": b"[1]", "text": b'"dataset"',
    "cut": b'{"format": ', "surrogate": b'{"format": "\\ud800"}', "number": b"1e999", "two": b"{} {}",
    "UTF-16": '{"format": 1}'.encode("utf-16"),
    "object": b'{"format_version": 1, "num_classes": 1e999, "packing": {}, "splits": {}, "files": {}, '
              b'"samples": -1, "rejected": [], "moves": 1, "manifest": 1, "tar": 1, "idx": 1}',
}


@pytest.mark.parametrize("reader", JSONS)
def test_json_of_other_forms_is_refused(reader, tmp_path):
    for kind, data in JSON.items():
        folder = tmp_path / kind
        folder.mkdir()
        refused(lambda: READERS[reader](folder, data), f"{reader}: {kind}")


@pytest.mark.parametrize("count", [10**30, -1, 0.5, "3", [3], None])
def test_a_dataset_counts_what_fits_memory(count, tmp_path):
    made = in_dataset("x", lambda dataset: len(dataset))
    assert made(tmp_path, b"") == 3
    manifest = json.loads((tmp_path / "dataset.json").read_text())
    for change in ({"num_classes": count}, {"splits": {"train": {"samples": count, "shards": 1}}},
                   {"files": {"a": {"size": count, "sha256": "0" * 64}}}):
        (tmp_path / "dataset.json").write_text(json.dumps(manifest | change))
        refused(lambda: Dataset(tmp_path), str(change))


@pytest.mark.parametrize("name, source", [("../stolen", ".packing/a"), ("a/b", ".packing/a"), ("a", "../secret"),
                                          ("a", ".packing/../../secret"), ("..", ".packing/a"), ("a", "/etc/passwd")])
def test_packing_moves_nothing_out_of_or_into_its_folder(name, source, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "secret").write_text("mine")
    at(".packing/publish.json", lambda path: None)(
        out, json.dumps({"moves": {name: source}, "manifest": "{}"}).encode())
    at(".packing/a", lambda path: None)(out, b"theirs")
    with pytest.raises(UserError, match="publish.json is damaged"):
        finish(LocalOutput(str(out)))
    assert (tmp_path / "secret").read_text() == "mine" and sorted(os.listdir(tmp_path)) == ["out", "secret"]


# YAML


def laughs(first: str, each: str) -> bytes:
    """Few lines that stand for 10^9 values."""
    lines = [f"a0: &a0 {first}"] + [f"a{i}: &a{i} {each % ', '.join([f'*a{i - 1}'] * 10)}" for i in range(1, 10)]
    return "\n".join(lines).encode()


YAML = {
    "object": b"!!python/object/apply:os.mkdir [MARKER]", "new": b"!!python/object/new:os.mkdir [MARKER]",
    "name": b"train: !!python/name:os.system", "module": b"- !!python/module:os", "tuple": b"- !!python/tuple [1]",
    "laughs": laughs("[x, x]", "[%s]"), "laughs by merging": laughs("{x: 1}", "{<<: [%s]}"),
    "laughs of mappings": laughs("{x: 1}", "{? [%s] : 1}"), "itself": b"a: &a [*a]", "itself by key": b"&a {? *a : 1}",
    "deep lists": b"[" * 10_000, "deep and whole": b"[" * 10_000 + b"]" * 10_000, "deep mappings": b"{a: " * 10_000,
    "deep blocks": b"- " * 10_000 + b"a", "long": b"# " + b"x" * 10**8 + b"\nsearch: 1\n",
    "not UTF-8": b"a: \xff", "control": b"a: \x1b[2J", "long number": b"train: {lr: " + b"9" * 5000 + b"}",
    "hexadecimal": b"train: {lr: 0x" + b"f" * 90_000 + b"}", "date": b"a: 2001-99-99", "binary": b"- !!binary 'a'",
    "list as a key": b"? [a]\n: 1", "unknown": b"a: !boom 1", "alias": b"a: *b", "two": b"a: 1\n---\nb: 2",
}


@pytest.mark.parametrize("reader", YAMLS)
@pytest.mark.parametrize("kind", YAML)
def test_hostile_yaml_is_refused(reader, kind, tmp_path):
    marker = tmp_path / "executed"
    refused(lambda: READERS[reader](tmp_path, YAML[kind].replace(b"MARKER", str(marker).encode())), kind)
    assert not marker.exists()


def test_anchors_that_people_write_are_read():
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]") == {
        "a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}] * 2}


@pytest.mark.parametrize("text", ["[" * 5000, f"'{'[' * 5000}'", "'&a [*a]'", "'!!python/name:os.system'",
                                  "0x" + "f" * 5000])
@pytest.mark.parametrize("field", ["train.lr", "view.area", "stages"])
def test_a_value_in_a_preset_is_no_way_in(field, text, tmp_path, call, refused):
    section, _, name = field.partition(".")
    (tmp_path / "p.yaml").write_text(f"{section}: {{{name}: {text}}}" if name else f"{section}: {text}")
    done = call("train.py", "--config", tmp_path / "p.yaml", "--data", tmp_path, "--out", tmp_path / "run")
    refused(done, "")
    assert len(done.stderr) < 1000


# Tables


def tables(columns: str) -> dict[str, bytes]:
    header, row = columns.encode() + b"\n", b",".join([b"1"] * (columns.count(",") + 1)) + b"\n"
    return {
        "quote that never ends": header + b'"' + b"x" * 2**24, "quoted header": b'"' + b"x" * 2**24,
        "long field": header + b"x" * 2**24 + b"\n", "long header": b"x" * 2**24,
        "not UTF-8": header + b"\xff" + row, "NUL": header + row.replace(b"1", b"\0"), "ragged": header + b"1\n",
        "too many fields": header + b"," * 100_000 + b"\n", "UTF-16": (header + row).decode().encode("utf-16"),
        "no rows of the kind": header[:-1] + b",more\n" + b"a" * 10, "empty": b"", "lines": b"\n" * 1000,
    }


HEADERS = {"classes.csv": "label,landmark_id,images,name", "rejected.csv": "id,split,reason", "truths.csv": "id,labels",
           "samples.csv": "id,landmark_id,label,split", "samples.parquet": "id,landmark_id,label,split",
           "classes to adopt": "label,landmark_id", "names": "landmark_id,category",
           "sample submission": "id,landmarks", "solution of a benchmark": "id,images,Usage",
           "relevant photos": "query,relevant,junk"}
HARMLESS = {("rejected.csv", "long field"), ("names", "NUL"), ("sample submission", "NUL"), ("rejected.csv", "NUL"),
            ("relevant photos", "NUL")}


@pytest.mark.parametrize("reader", TABLES)
def test_hostile_tables_are_refused(reader, tmp_path):
    for kind, data in tables(HEADERS[reader]).items():
        if (reader, kind) in HARMLESS:
            continue
        folder = tmp_path / kind
        folder.mkdir()
        refused(lambda: READERS[reader](folder, data), f"{reader}: {kind}")


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A few of its bytes flipped, replaced by large and by negative numbers, left out or added; both ends often."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        at = rng.choice([rng.randrange(len(changed)), rng.randrange(128), max(0, len(changed) - rng.randrange(1, 999))])
        number = rng.choice([b"\xff" * 4, b"\x7f\xff\xff\xff", bytes(4), b"\x80\0\0\0", rng.randbytes(4), b""])
        if rng.random() < 0.5:
            changed[at:at + 1] = bytes([rng.randrange(256)])
        else:
            changed[at:at + rng.choice([0, 4])] = number
    return bytes(changed)


def test_types_of_parquet_execute_nothing(tmp_path):
    marker = tmp_path / "executed"
    field = pa.field("id", pa.string(), metadata={
        "ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickle.dumps(Trap(marker))})
    pandas = json.dumps({"index_columns": ["__import__('os')"], "columns": []})
    schema = pa.schema([field], {"pandas": pandas})
    parquet.write_table(pa.table([["a"]], schema=schema), tmp_path / "samples.parquet")
    refused(lambda: read_samples(tmp_path / "samples.parquet"), "extension type")
    assert not marker.exists()


@pytest.mark.parametrize("options", [{}, {"compression": "none", "use_dictionary": False}, {
    "compression": "zstd", "data_page_version": "2.0"}])
def test_damaged_parquet_is_read_or_refused(options, tmp_path):
    rng, out = random.Random(0), io.BytesIO()
    rows = {"id": [f"a{number:03d}" for number in range(300)], "landmark_id": ["7", "8"] * 150, "label": [0, 1] * 150,
            "split": ["train"] * 300}
    parquet.write_table(pa.table(rows), out, **options)
    for _ in range(100):
        data = damaged(out.getvalue(), rng)
        with suppress(UserError):
            at("samples.parquet", read_samples)(tmp_path, data)


def test_a_few_bytes_of_parquet_do_not_become_gigabytes_of_rows(tmp_path):
    part = pa.table({name: ["x"] * 10**6 for name in HEADERS["samples.parquet"].split(",")})
    with parquet.ParquetWriter(tmp_path / "samples.parquet", part.schema) as writer:
        for _ in range(2):
            writer.write_table(part)
    refused(lambda: read_samples(tmp_path / "samples.parquet"), "bomb")


# Photos


PROFILES = [icc_profiles.ADOBE_RGB, icc_profiles.COARSE_SRGB, icc_profiles.gray_profile(icc_profiles.GAMMA_22),
            icc_profiles.cmyk_profile(np.zeros((2, 2, 2, 2, 3), np.uint8))]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("profile", PROFILES)
def test_a_damaged_color_profile_is_used_or_ignored(profile, channels):
    """littleCMS reads them, in C."""
    rng, pixels = random.Random(0), np.full((6, 8, channels), 100, np.uint8)
    for _ in range(100):
        found = to_rgb(pixels, damaged(profile, rng))
        assert found.shape == (6, 8, 3) and found.dtype == np.uint8


# Tensors


def compressed(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    return out.getvalue()


def test_a_few_bytes_do_not_become_gigabytes_of_weights(tmp_path):
    bomb = compressed(saved({"format": 2, "config": {"x": torch.zeros(2**24)}}))
    assert len(bomb) < 2**20
    refused(lambda: TENSORS["checkpoint.pt"](tmp_path, bomb), "bomb")


WEIGHTS = {"embedder": {}, "head": {"weight": torch.ones(4, 8)}, "ema": None}
STATES = {
    "no mapping": 1, "list": [], "tensor": torch.ones(3), "no format": {}, "format of text": {"format": "2\n" * 99},
    "no config": {"format": 2}, "config of text": {"format": 2, "config": "x", "stages": {}, **WEIGHTS},
    "section of text": {"format": 2, "config": {"train": "x"}, "stages": {}, **WEIGHTS},
    "position of text": {"format": 2, "config": {}, "stages": {}, "position": "x", **WEIGHTS},
    "average": {"format": 2, "config": {}, "stages": {}, **WEIGHTS, "ema": {"x": 1}},
}


@pytest.mark.parametrize("state", STATES)
def test_a_checkpoint_of_another_form_is_refused(state, tmp_path):
    refused(lambda: TENSORS["checkpoint.pt"](tmp_path, saved(STATES[state])), state)


# LightGBM ends the process for text that is damaged, and follows the numbers in it wherever they lead.


@pytest.fixture(scope="module")
def booster():
    """The text of a small one of 4 features and 2 classes."""
    lightgbm = pytest.importorskip("lightgbm")
    features = np.random.default_rng(0).normal(size=(200, 4))
    known = lightgbm.Dataset(features, (features[:, 0] > 0).astype(int))
    parameters = {"objective": "multiclass", "num_class": 2, "verbose": -1, "num_leaves": 4, "num_threads": 1}
    return lightgbm.train(parameters, known, 2).model_to_string()


def with_tree(text: str, pattern: str, by: str) -> str:
    """The text with a line of its first tree changed, and the sizes of its trees right."""
    changed = re.sub(pattern, by, text, count=1, flags=re.MULTILINE)
    assert changed != text
    trees = re.split("^(?=Tree=)", changed.partition("end of trees")[0], flags=re.MULTILINE)[1:]
    return re.sub("^tree_sizes=.*", "tree_sizes=" + " ".join(str(len(tree)) for tree in trees), changed, flags=re.M)


def test_only_boosters_that_lightgbm_can_follow_are_given_to_it(booster, tmp_path):
    def load(text: Any, **fields: Any) -> Any:
        whole = {"format": "arcshard-reranker-1", "boosters": [[text]] * 5, "names": list("abcd"), "top": 1,
                 "fitted_on": ["q"], "steps": ""}
        return at("r.json", Reranker.load)(tmp_path, json.dumps(whole | fields).encode())

    assert load(booster).probabilities(np.zeros((3, 4)), ["q", "r", "s"]).shape == (3, 2)
    for pattern, by in (("^left_child=.*", "left_child=0 0 0"), ("^left_child=.*", "left_child=1000000000 2 -1"),
                        ("^right_child=.*", "right_child=-9 -9 -9"), ("^split_feature=.*", "split_feature=4 0 0"),
                        ("^num_leaves=.*", "num_leaves=2000000000"), ("^num_cat=0", "num_cat=1"),
                        ("^threshold=.*", "threshold="), ("^is_linear=0", "is_linear=1"), ("^leaf_value=.*", "")):
        refused(lambda: load(with_tree(booster, pattern, by)), by)
    for text in (booster.partition("leaf_count=")[0], booster.replace("tree_sizes=", "tree_sizes=9"), "", None, 5,
                 ["x"], booster.replace("num_class=2", "num_class=2000000000")):
        refused(lambda: load(text), f"{text!r:.50}")
    for fields in ({"top": 2}, {"names": ["a"]}, {"names": 5}, {"boosters": []}, {"steps": 5}, {"fitted_on": [[]]}):
        refused(lambda: load(booster, **fields), str(fields))


# Tables of a dataset whose form is right, and whose numbers are not.


@pytest.mark.parametrize("label", [-2, 2, 2**31 - 1])
def test_labels_beyond_the_classes_are_refused(label, tmp_path):
    read = in_dataset("train.labels.npy", lambda dataset: dataset.labels)
    assert read(tmp_path, array(np.array([-1, 0, 1], "<i4"))).tolist() == [-1, 0, 1]
    with pytest.raises(UserError, match="labels beyond -1 to 1: run python -m shards verify"):
        read(tmp_path, array(np.array([-1, 0, label], "<i4")))


@pytest.mark.parametrize("shard", [-1, 1, 2**31 - 1])
def test_shards_that_are_not_there_are_refused(shard, tmp_path):
    read = in_dataset("train.index.npy", lambda dataset: dataset.index)
    rows = np.zeros(3, INDEX_DTYPE)
    assert len(read(tmp_path, array(rows))) == 3
    rows["shard"][2] = shard
    with pytest.raises(UserError, match="names shards beyond 0 to 0: run python -m shards verify"):
        read(tmp_path, array(rows))


# The commands end as with any other mistake.


@pytest.fixture
def run_folder(tmp_path):
    """A run of random weights, as its checkpoint's state."""
    config = ModelConfig(backbone="test_efficientnet", weights="none", neck="bn", dim=8)
    options = {"model": asdict(config), "view": asdict(View()), "head": {"centers": 1},
               "train": {"size": 32, "device": "cpu", "seed": 0}}
    checkpoint.save(tmp_path / "run" if (tmp_path / "run").mkdir() is None else tmp_path, Checkpoint(
        options, Weights(build_embedder(config).state_dict(), {"weight": torch.ones(6, 8)})))
    return tmp_path / "run"


def commands(run: Path, data: Path) -> dict[str, list[object]]:
    """Those that read a run; its folder has a photo."""
    return {
        "evaluate": ["evaluate.py", "--run", run, "--data", data],
        "report": ["report.py", "--run", run, "--data", data],
        "untrained": ["evaluate.py", "--run", run, "--data", data, "--untrained"],
        "export": ["export.py", "--run", run, "--out", run / "m.safetensors"],
        "embed": ["-m", "retrieval", "embed", "--run", run, "--data", data, "--splits", "val", "--out", run / "e"],
        "predict": ["predict.py", "--run", run, "--index", data, "--images", run, "--out", run / "s.csv"],
        "tune": ["tune.py", "--run", run, "--data", data, "--out", run / "t.yaml"],
        "train": ["train.py", "--data", data, "--out", run],
    }


@pytest.mark.parametrize("command", commands(Path(), Path()))
def test_commands_refuse_a_trap_for_a_checkpoint(command, call, tmp_path, dataset_path, refused):
    marker = tmp_path / "executed"
    (tmp_path / "a.jpg").touch()
    for kind in ("pickle 2", "torch optimizer"):
        (tmp_path / checkpoint.NAME).write_bytes(traps(marker)[kind])
        refused(call(*commands(tmp_path, dataset_path)[command]), "is not a checkpoint")
    assert not marker.exists()


@pytest.mark.parametrize("wrong", [{"model": {"backbone": 5}}, {"model": {"dim": "x"}}, {"model": {"backdoor": 1}},
                                   {"view": {"framing": "?", "x": 1}}, {"head": {"centers": 0}}, {"head": {}},
                                   {"head": {"centers": 5}}, {"train": {}}, {"model": {"dim": 16}}])
def test_options_that_do_not_fit_the_weights_are_refused(wrong, call, run_folder, dataset_path, refused):
    state = torch.load(run_folder / checkpoint.NAME)
    for section, fields in wrong.items():
        state["config"][section] = {**state["config"][section], **fields} if fields else {}
    torch.save(state, run_folder / checkpoint.NAME)
    refused(call(*commands(run_folder, dataset_path)["embed"]), "is not a checkpoint of this version")


def test_weights_of_timm_are_refused_by_train(call, tmp_path, dataset_path, refused):
    marker = tmp_path / "executed"
    (tmp_path / "w.pth").write_bytes(traps(marker)["torch"])
    done = call("train.py", "--data", dataset_path, "--out", tmp_path / "run", "--model.backbone", "test_efficientnet",
                "--model.weights", tmp_path / "w.pth", "--train.device", "cpu")
    refused(done, "is not a checkpoint of timm's test_efficientnet")
    assert not marker.exists()


# What is printed


def test_a_sentence_is_one_line_without_control_characters(capsys):
    def mistake() -> None:
        raise UserError("photo \x1b[2J\r\n\x07\u202e\udcffé of a zip")

    with pytest.raises(SystemExit, match="2"):
        run(mistake)
    assert capsys.readouterr().err.partition(": ")[2] == "photo \\x1b[2J\\r\\n\\x07\\u202e\\udcffé of a zip\n"


def test_names_of_a_dataset_do_not_steer_the_terminal(tmp_path):
    said = best_five([tmp_path], [[(0, 0.5)]], {0: "7\x1b[2J"}, {"7\x1b[2J": "Tower\r"}, [False])
    assert all(line.isprintable() for line in said.split("\n")) and "7\\x1b[2J" in said


# Who reads how

LOADS = re.compile(r"\b(np\.load|open_memmap\(|json\.loads?|yaml\.\w*load\w*|torch\.load|pickle\.|marshal|shelve"
                   r"|joblib\.load|read_pickle|(?<!\.)eval\(|exec\(|allow_pickle=True|weights_only=False|extractall)")
SOURCES = {"arcshard/untrusted.py": {"json.loads", "yaml.load", "open_memmap(", "pickle."},
           "arcshard/checkpoint.py": {"torch.load"}, "model/weights.py": {"torch.load"}}


def test_all_files_are_read_by_the_readers_that_are_tried_here():
    rooms = [path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] not in
             ("tests", "benchmarks", "docs", ".venv", ".peers", "build")]
    found = {str(path.relative_to(ROOT)): {*LOADS.findall(code_of(path))} for path in rooms}
    assert {name: loads for name, loads in found.items() if loads} == SOURCES


def code_of(path: Path) -> str:
    """The code without docstrings and comments."""
    return re.sub(r'(?s:""".*?""")|#[^\n]*', "", path.read_text())
