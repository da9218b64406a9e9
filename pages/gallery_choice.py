"""Which queries are worth a look."""
import numpy as np
from numpy.typing import NDArray

from pages.report_page import choose_queries
from retrieval.metrics import Truths, has_landmark, is_true
from retrieval.trace import Stage


def choose(stages: list[Stage], truths: Truths, count: int) -> dict[str, NDArray[np.int64]]:
    """Heading -> positions of queries, none twice, at most `count` in all; a heading without any is left out.

    Up to a sixth each of those that the steps mended and spoiled, the most confident first; the rest as
    `arcshard.report_page.choose_queries` has it.
    """
    first, last = (stage.candidates for stage in (stages[0], stages[-1]))
    right, was_right = (is_true(found.answers[:, None], truths)[:, 0] for found in (last, first))
    by_score, sixth = np.argsort(-last.confidences, kind="stable"), count // 6
    chosen = {"Mended: wrong before the steps, right after": by_score[(right & ~was_right)[by_score]][:sixth],
              "Spoiled: right before the steps, wrong after": by_score[(was_right & ~right)[by_score]][:sixth]}
    taken = np.concatenate(list(chosen.values()))
    rest = np.setdiff1d(by_score, taken)
    others = choose_queries(last.confidences[rest], right[rest], has_landmark(truths)[rest], count - len(taken))
    return {heading: rows for heading, rows in chosen.items() if len(rows)} | {
        heading: rest[rows] for heading, rows in others.items()}
