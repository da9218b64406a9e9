"""Stores of embeddings: read back equal, refused by name when they are not whole, and written in bounded memory."""
import json
import tracemalloc
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcshard.console import UserError
from retrieval import Embeddings
from retrieval.store import (
    KEYS,
    LABELS,
    LANDMARK_IDS,
    META,
    VECTORS,
    Parts,
    Provenance,
    in_parts,
    runs,
    share,
    write_store,
)

MADE = Provenance("0f", "ab", "test")


def embeddings(**changes):
    fields = {"vectors": np.eye(3, 4, dtype=np.float32), "keys": ["a1", "b2", "c_3"],
              "labels": np.array([1, 0, -1]), "landmark_ids": ["203", "Žižkov", ""], "provenance": MADE}
    return Embeddings(**fields | changes)


@pytest.mark.parametrize("saved", [
    embeddings(), embeddings(vectors=np.eye(3, 4, dtype=np.float16), provenance=replace(MADE, tta="flip")),
    embeddings(vectors=np.zeros((0, 4), np.float32), keys=[], labels=np.zeros(0, np.int64), landmark_ids=[])])
def test_load_maps_what_was_saved(tmp_path, saved):
    saved.save(tmp_path / "e")
    loaded = Embeddings.load(tmp_path / "e")
    for name in ("vectors", "labels"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(saved, name))
        assert getattr(loaded, name).dtype == getattr(saved, name).dtype
    for name in ("keys", "landmark_ids", "provenance"):
        assert getattr(loaded, name) == getattr(saved, name)
    np.testing.assert_array_equal(np.load(tmp_path / "e" / VECTORS, mmap_mode="r"), saved.vectors)
    assert isinstance(loaded.vectors, np.memmap) or not len(saved.keys)


def test_same_embeddings_same_bytes(tmp_path):
    for name in ("a", "b"):
        embeddings().save(tmp_path / name)
    assert {p.name for p in (tmp_path / "a").iterdir()} == {META, VECTORS, KEYS, LABELS, LANDMARK_IDS}
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize("name", [VECTORS, KEYS, LABELS, LANDMARK_IDS])
@pytest.mark.parametrize("how", ["cut", "one bit", "missing"])
def test_a_store_that_is_not_whole_is_refused_by_name(tmp_path, name, how):
    embeddings().save(tmp_path)
    path = tmp_path / name
    whole = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(whole[:-1] if how == "cut" else whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=f"({name} is not as it was written|is damaged): delete .* and embed again"):
        Embeddings.load(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "arcshard-embeddings-2"}', "\xff"])
def test_a_folder_of_something_else_is_refused(tmp_path, text):
    embeddings().save(tmp_path)
    (tmp_path / META).write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="is damaged: delete it and embed again"):
        Embeddings.load(tmp_path)


def test_another_format_is_named(tmp_path):
    embeddings().save(tmp_path)
    meta = json.loads((tmp_path / META).read_text())
    (tmp_path / META).write_text(json.dumps(meta | {"format": "arcshard-embeddings-99"}))
    with pytest.raises(UserError, match="of format arcshard-embeddings-99, not arcshard-embeddings-2: delete it"):
        Embeddings.load(tmp_path)


def test_stores_of_earlier_versions_do_not_say_their_size(tmp_path):
    embeddings(provenance=replace(MADE, size=512)).save(tmp_path)
    meta = json.loads((tmp_path / META).read_text())
    assert list(meta) == ["format", "model", "dataset", "split", "tta", "size", "files"] and meta.pop("size") == 512
    (tmp_path / META).write_text(json.dumps(meta))
    assert Embeddings.load(tmp_path).provenance == MADE
    (tmp_path / META).write_text(json.dumps({**meta, "size": [512]}))
    with pytest.raises(UserError, match="is damaged: delete it and embed again"):
        Embeddings.load(tmp_path)


def test_no_store_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="none holds no embeddings .*: run evaluate.py or python -m retrieval embed"):
        Embeddings.load(tmp_path / "none")


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"keys": ["a1"]}, r"have the lengths \[3, 1, 3, 3\]: give equal"),
    ({"keys": ["a1", "b2", "a1"]}, "the photo a1 has 2 rows"),
    ({"vectors": np.eye(3)}, r"float64 of shape \(3, 3\): give a float32 or float16 matrix"),
    ({"vectors": np.array([[0], [np.nan], [np.inf]], np.float32)}, "infinity in 2 of 3 rows, first b2")])
def test_embeddings_that_do_not_fit_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        embeddings(**changes)


def test_a_store_with_nan_or_with_a_photo_twice_is_refused_by_name(tmp_path, monkeypatch):
    with monkeypatch.context() as unchecked:
        unchecked.setattr("retrieval.store.refuse_broken", lambda vectors, keys: None)
        embeddings(vectors=np.full((3, 4), np.nan, np.float32)).save(tmp_path / "nan")
    with pytest.raises(UserError, match="nan: embeddings hold NaN .* 3 of 3 rows, first a1: delete"):
        Embeddings.load(tmp_path / "nan")
    write_store(tmp_path / "twice", [np.eye(2, dtype=np.float32)], ["a", "a"], np.zeros(2, int), ["", ""], MADE)
    with pytest.raises(UserError, match="twice: the photo a has 2 rows of embeddings instead of one: delete"):
        Embeddings.load(tmp_path / "twice")


def test_a_write_that_fails_leaves_no_store(tmp_path):
    embeddings().save(tmp_path)
    with pytest.raises(ValueError, match="first b"):
        write_store(tmp_path, [np.array([[0], [np.nan]], np.float32)], ["a", "b"], np.zeros(2, int), ["", ""], MADE)
    assert not (tmp_path / META).exists(), "what was there before was replaced in part"
    with pytest.raises(ValueError, match="1 vectors came for 2 keys"):
        write_store(tmp_path, [np.ones((1, 1), np.float32)], ["a", "b"], np.zeros(2, int), ["", ""], MADE)


def test_parts_outlive_a_kill_and_make_the_same_store(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    parts = Parts(tmp_path, MADE, 7, "float16", 2)
    parts.begin()
    assert parts.missing() == [0, 1, 2, 3] and parts.rows_of(2, 3) == range(4, 7)
    parts.write(1, vectors[2:4])
    again = Parts(tmp_path, MADE, 7, "float16", 2)
    again.begin()
    assert again.missing() == [0, 2, 3]
    for number in again.missing():
        again.write(number, vectors[2 * number:2 * number + 2])
    np.testing.assert_array_equal(np.concatenate([*again.blocks()]), vectors.astype(np.float16))


@pytest.mark.parametrize("made, rows, dtype", [(replace(MADE, model="1f"), 7, "float16"), (MADE, 8, "float16"),
                                               (MADE, 7, "float32")])
def test_parts_of_other_embeddings_are_not_used(tmp_path, made, rows, dtype):
    parts = Parts(tmp_path, MADE, 7, "float16")
    parts.begin()
    parts.write(0, np.zeros((7, 3), np.float32))
    other = Parts(tmp_path, made, rows, dtype)
    other.begin()
    assert other.missing() == [0]


def test_parts_of_a_damaged_plan_are_not_used(tmp_path):
    parts = Parts(tmp_path, MADE, 7, "float16")
    parts.begin()
    parts.write(0, np.zeros((7, 3), np.float32))
    (tmp_path / "parts" / "plan.json").write_bytes(b"\xff")
    parts.begin()
    assert parts.missing() == [0]


@given(st.lists(st.integers(0, 9)), st.integers(1, 7))
def test_in_parts_keeps_rows_and_order(sizes, rows):
    whole = np.arange(sum(sizes), dtype=np.float32)[:, None]
    batches = np.split(whole, np.cumsum(sizes)[:-1]) if sizes else []
    parts = [*in_parts(iter(batches), rows)]
    full, rest = divmod(len(whole), rows)
    assert [len(part) for part in parts] == [rows] * full + [rest] * (rest > 0)
    np.testing.assert_array_equal(np.concatenate([whole[:0], *parts]), whole)


@given(st.sets(st.integers(0, 40)), st.integers(1, 5))
def test_shares_are_contiguous_and_runs_make_them_up_again(numbers, size):
    ascending = sorted(numbers)
    shares = [share(ascending, rank, size) for rank in range(size)]
    assert sum(shares, []) == ascending and max(map(len, shares)) - min(map(len, shares)) <= 1
    found = runs(ascending)
    assert [n for first, last in found for n in range(first, last + 1)] == ascending
    assert all(end + 1 < begin for (_, end), (begin, _) in pairwise(found))


def test_a_store_is_written_in_the_memory_of_keys_and_labels(tmp_path):
    """200,000 vectors are 102 MB; keys as bytes are 3 MB and labels 2."""
    rows, block = 200_000, np.random.default_rng(0).random((4096, 256), np.float32).astype(np.float16)
    blocks = (block[:min(4096, rows - start)] for start in range(0, rows, 4096))
    keys = [f"{i:016x}" for i in range(rows)]
    tracemalloc.start()
    write_store(tmp_path, blocks, keys, np.zeros(rows, np.int32), [""] * rows, MADE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 25e6
    assert len(np.load(tmp_path / VECTORS, mmap_mode="r")) == rows
