"""A penalty for classes that answer suspiciously many queries."""
from dataclasses import dataclass, replace

import numpy as np

from retrieval.metrics import NO_LANDMARK
from retrieval.state import Candidates, State, Step


@dataclass(frozen=True)
class FrequentClass(Step):
    """Scores less penalty for queries whose answer is that of more than `times` queries, unless above `protect`.

    2nd place 2020, rule (b) of W2 and its code at 683f021: times 20, penalty 2. For the test queries of one
    contest: few landmarks are shown so often, and a photo that attracts many queries mostly shows no landmark.
    """

    times: int = 20
    penalty: float = 2.0
    protect: float | None = None
    """Score above which an answer keeps its score; null: none does."""

    def __call__(self, state: State) -> State:
        found = state.candidates
        if found is None:
            raise ValueError("frequent_class counts answers: put vote before it")
        _, of, counts = np.unique(found.answers, return_inverse=True, return_counts=True)
        protected = found.confidences > (np.inf if self.protect is None else self.protect)
        hit = (counts[of] > self.times) & (found.answers != NO_LANDMARK) & ~protected
        return replace(state, candidates=Candidates(found.labels, found.scores - self.penalty * hit[:, None]))
