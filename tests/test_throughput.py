"""What benchmarks/throughput.py concludes from its figures; they themselves are nobody's assertion."""
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def throughput():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield __import__("throughput")


@settings(max_examples=60)
@given(counts=st.lists(st.integers(1, 4), min_size=1, max_size=4), batch_size=st.integers(1, 20))
def test_expected_classes_are_the_mean_over_all_batches(throughput, counts, batch_size):
    labels = np.repeat(np.arange(len(counts)), counts)
    batch_size = min(batch_size, len(labels))
    every = [len(set(batch)) for batch in combinations(labels.tolist(), batch_size)]
    assert throughput.expected_classes(np.array(counts), batch_size) == pytest.approx(np.mean(every))


@pytest.mark.parametrize("rates, sentence", [
    ({"loader": 200, "step": 100, "both": 98, "read": 900, "decode": 300},
     "compute-bound: with the loader beside it the step reaches 98% of its own rate; the loader alone could feed 2.0 "
     "such networks"),
    ({"loader": 200, "step": 100, "both": 80, "read": 900, "decode": 300},
     "processor-bound: with the loader beside it the step reaches 80% of its own rate; the loader alone could feed 2.0 "
     "such networks, but not on the same cores"),
    ({"loader": 100, "step": 250, "both": 95, "read": 900, "decode": 110},
     "decode-bound: with the loader beside it the step reaches 38% of its own rate; it could take 2.5 times what the "
     "loader gives, whose slowest part is the decode of crops"),
    ({"loader": 100, "step": 400, "both": 100, "read": 105, "decode": 300},
     "read-bound: with the loader beside it the step reaches 25% of its own rate; it could take 4.0 times what the "
     "loader gives, whose slowest part is the order and read")])
def test_the_verdict_names_what_is_slowest(throughput, rates, sentence):
    assert throughput.verdict([rates, rates]) == sentence


def test_the_schedule_is_that_of_google_landmarks(throughput):
    assert throughput.schedule([{"both": 1000.0}]) == (
        "10 epochs of 1,223,195 images with this network would take 3.4 hours here")  # 12,231,950 / 1000 / 3600
