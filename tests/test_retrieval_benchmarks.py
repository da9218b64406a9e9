"""Metrics and ground truth of published benchmarks, against plain loops in float64 and worked examples."""
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcshard.console import UserError
from arcshard.untrusted import parse_pickle
from retrieval.benchmarks import Asked, read_gnd, read_relevant, read_solution, revisited


def official(ranking, right, junk):
    """AP and precision at 1, 5, 10 as the paper's text has them: walk down the list that is left without junk."""
    cleaned = [row for row in ranking if row not in junk]
    area, hits, recall, precision, last = 0.0, 0, 0.0, 1.0, 0
    for rank, row in enumerate(cleaned, 1):
        before = hits / (rank - 1) if rank > 1 else 1.0
        if row in right:
            hits, last = hits + 1, rank
            recall, precision = hits / len(right), hits / rank
            area += (recall - (hits - 1) / len(right)) * (before + precision) / 2
    at = [sum(row in right for row in cleaned[:min(k, last)]) / min(k, last) for k in (1, 5, 10)]
    return [area, *at]


@given(st.integers(0, 10**6), st.integers(3, 60), st.integers(1, 6))
def test_revisited_is_what_a_walk_down_each_list_finds(seed, photos, queries):
    rng = np.random.default_rng(seed)
    ranks = np.stack([rng.permutation(photos) for _ in range(queries)], axis=1)
    kinds = rng.choice(4, (queries, photos), p=[.1, .15, .15, .6])
    gnd = [{name: np.flatnonzero(row == kind) for kind, name in enumerate(("easy", "hard", "junk"))} for row in kinds]
    sets = [{name: set(rows.tolist()) for name, rows in one.items()} for one in gnd]
    found = revisited(ranks, gnd)
    for setup, right, junk in (("easy", ["easy"], ["hard", "junk"]), ("medium", ["easy", "hard"], ["junk"]),
                               ("hard", ["hard"], ["easy", "junk"])):
        each = [official(ranks[:, q].tolist(), set().union(*(sets[q][name] for name in right)),
                         set().union(*(sets[q][name] for name in junk)))
                for q in range(queries) if any(sets[q][name] for name in right)]
        expected = np.mean(each, axis=0) if each else np.zeros(4)
        assert [found[setup][name] for name in ("map", "mp@1", "mp@5", "mp@10")] == pytest.approx(expected, abs=1e-12)


def test_the_worked_example():
    """Right, junk, wrong, right: the places 0 and 2 of the list without junk."""
    found = revisited(np.array([[7], [3], [5], [2], [0], [1], [4], [6]]), [{"easy": [7, 2], "hard": [], "junk": [3]}])
    assert found["easy"] == found["medium"] == pytest.approx(
        {"map": 19 / 24, "mp@1": 1, "mp@5": 2 / 3, "mp@10": 2 / 3})
    assert round(found["easy"]["map"], 6) == 0.791667
    assert found["hard"] == {"map": 0, "mp@1": 0, "mp@5": 0, "mp@10": 0}


@given(st.integers(0, 10**6))
def test_junk_has_no_effect_wherever_it_stands(seed):
    rng = np.random.default_rng(seed)
    gnd = [{"easy": [0, 1, 2], "hard": [3, 4], "junk": [5, 6, 7]}]
    others = [row for row in rng.permutation(20).tolist() if row not in (5, 6, 7)]
    lists = []
    for _ in range(2):
        listed = others.copy()
        for row in (5, 6, 7):
            listed.insert(rng.integers(0, len(listed) + 1), row)
        lists.append(np.array(listed)[:, None])
    assert revisited(lists[0], gnd)["medium"] == revisited(lists[1], gnd)["medium"]


def test_a_ranking_with_a_column_too_few_is_refused():
    with pytest.raises(ValueError, match="a column for each of the 2 queries"):
        revisited(np.zeros((3, 1), np.int64), [{"easy": [], "hard": [], "junk": []}] * 2)


GND = {"imlist": ["a", "b", "c"], "qimlist": ["q", "r"],
       "gnd": [{"bbx": [1.0, 2.0, 3.5, 4.0], "easy": [0], "hard": [1], "junk": []},
               {"bbx": [0.0, 0.0, 9.0, 9.0], "easy": [], "hard": [2], "junk": [0, 1]}]}


def as_arrays(gnd):
    return gnd | {"gnd": [{name: np.array(value, np.int64 if name != "bbx" else np.float32)
                           for name, value in one.items()} for one in gnd["gnd"]]}


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("form", [dict, as_arrays])
def test_ground_truth_is_read_from_every_kind_of_pickle(protocol, form, tmp_path):
    (tmp_path / "gnd.pkl").write_bytes(pickle.dumps(form(GND), protocol))
    found = read_gnd(tmp_path / "gnd.pkl")
    assert (found.gallery, found.queries, found.boxes.tolist()) == (
        GND["imlist"], GND["qimlist"], [one["bbx"] for one in GND["gnd"]])
    assert [{name: rows.tolist() for name, rows in one.items()} for one in found.gnd] == [
        {name: one[name] for name in ("easy", "hard", "junk")} for one in GND["gnd"]]


@given(st.sampled_from([np.int16, np.uint8, np.float32, np.float64, np.dtype(">i4"), np.bool_]), st.integers(0, 4))
def test_arrays_and_numbers_of_numpy_come_as_lists(dtype, protocol):
    value = np.asfortranarray(np.arange(6).reshape(2, 3).astype(dtype))
    assert parse_pickle(pickle.dumps([value, value[1, 2]], protocol)) == [value.tolist(), value[1, 2].item()]


def test_python_2_wrote_names_and_arrays_as_texts():
    written = (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85"
               b"cnumpy\ndtype\nU\x02i8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
               b"\x89U\x10\x05\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0tb.")
    assert parse_pickle(written) == [5, 7]


@pytest.mark.parametrize(("change", "reason"), [
    ({"qimlist": ["q"]}, "contradicts itself"), ({"imlist": ["a"]}, "contradicts itself"),
    ({"gnd": [{**GND["gnd"][0], "bbx": [3.0, 0.0, 3.0, 4.0]}, GND["gnd"][1]]}, "boxes without area"),
    ({"gnd": [{**GND["gnd"][0], "easy": ["x"]}, GND["gnd"][1]]}, "no ground truth"),
    ({"gnd": [{"bbx": [0, 0, 1, 1]}] * 2}, "no ground truth"), ({"imlist": 3}, "no ground truth")])
def test_other_pickles_are_refused(change, reason, tmp_path):
    (tmp_path / "gnd.pkl").write_bytes(pickle.dumps(GND | change))
    with pytest.raises(UserError, match=reason):
        read_gnd(tmp_path / "gnd.pkl")


def test_solutions_of_google_landmarks_are_read_without_what_is_ignored(tmp_path):
    (tmp_path / "s.csv").write_text("id,images,Usage\nq1,a b,Public\nq2,None,Ignored\nq3,c,Private\n")
    assert read_solution(tmp_path / "s.csv", "images") == {
        "q1": Asked("public", ["a", "b"], []), "q3": Asked("private", ["c"], [])}
    (tmp_path / "s.csv").write_text("id,landmarks,Usage\nq1,,Public\nq2,7 8,Private\n")
    assert read_solution(tmp_path / "s.csv", "landmarks") == {
        "q1": Asked("public", [], []), "q2": Asked("private", ["7", "8"], [])}
    for text, reason in (("id,landmarks,Usage\nq1,,Open\n", "Usage 'Open'"), ("id,landmarks\nq1,\n", "columns"),
                         ("id,landmarks,Usage\nq1,,Public\nq1,,Public\n", "two for one query")):
        (tmp_path / "s.csv").write_text(text)
        with pytest.raises(UserError, match=reason):
            read_solution(tmp_path / "s.csv", "landmarks")


def test_tables_of_ones_own_are_read(tmp_path):
    (tmp_path / "r.csv").write_text("query,relevant,junk\nq,a b,c\nnone,,\n")
    assert read_relevant(tmp_path / "r.csv") == {"q": Asked("all", ["a", "b"], ["c"]), "none": Asked("all", [], [])}
