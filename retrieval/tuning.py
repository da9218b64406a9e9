"""Find the numbers of a pipeline's steps that answer the queries of one split best; measure what each step gains."""
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation import QuerySet, answer, answer_and_rank, folds, precisions
from retrieval.metrics import gap, has_landmark, interval, resampled_gaps, resampled_means
from retrieval.pipeline import Pipeline
from retrieval.state import Step
from retrieval.steps import Search, Vote

FACTORS = (0.5, 2.0)
PASSES = 3


@dataclass(frozen=True)
class Part:
    """Some of a split's queries. All of the split are answered together, since steps may look at all queries."""
    queries: QuerySet
    mask: NDArray[np.bool_]
    """(Q,)."""


def gap_of(parts: Sequence[Part], pipeline: Pipeline, device: str = "cpu") -> float:
    """GAP of the pipeline's answers to all parts' queries together."""
    parts = [part for part in parts if part.mask.any()]
    found = [answer(part.queries, pipeline, device) for part in parts]
    chosen: list[list[int]] = [np.flatnonzero(part.mask).tolist() for part in parts]
    return gap(np.concatenate([one.answers[rows] for one, rows in zip(found, chosen)]),
               np.concatenate([one.confidences[rows] for one, rows in zip(found, chosen)]),
               [part.queries.truths[row] for part, rows in zip(parts, chosen) for row in rows],
               [part.queries.keys[row] for part, rows in zip(parts, chosen) for row in rows])


def halves_of_non_landmarks(sets: Mapping[str, QuerySet], split: str) -> tuple[list[Part], list[Part]]:
    """To tune on: the split, and of the others' queries without landmark those of one half by key. To measure on: the
    rest. Raises ValueError if the others have no such queries."""
    masks = {name: np.full(len(queries.keys), True) if name == split else
             ~has_landmark(queries.truths) & (folds(queries.keys) == 0) for name, queries in sets.items()}
    if not any(mask.any() for name, mask in masks.items() if name != split):
        raise ValueError(f"no split but {split} has queries without landmark: leave out --non-landmarks")
    return ([Part(queries, masks[name]) for name, queries in sets.items()],
            [Part(queries, ~masks[name]) for name, queries in sets.items()])


def tune(parts: Sequence[Part], start: Pipeline, device: str = "cpu",
         tried: Callable[[Pipeline, float], None] = lambda pipeline, value: None, passes: int = PASSES
         ) -> tuple[Pipeline, float]:
    """Coordinate search: numbers are halved or doubled, one at a time, as long as GAP grows; the best and its GAP.

    At most `passes` rounds over all numbers, weights of models included, except those of steps before a re-ranker.
    `tried` is called after each trial. The result is fitted to these queries: measure it on others.
    """
    def measure(pipeline: Pipeline) -> float:
        value = gap_of(parts, pipeline, device)
        tried(pipeline, value)
        return value

    best, value = start, measure(start)
    for _ in range(passes):
        before = value
        for i in range(start.num_fixed, len(start.steps)):
            for step in list(variants(best.steps[i], len(parts[0].queries.models))):
                other = Pipeline((*best.steps[:i], step, *best.steps[i + 1:]))
                if (found := measure(other)) > value:
                    best, value = other, found
        if value == before:
            break
    return best, value


def variants(step: Step, models: int) -> Iterator[Step]:
    """The step with each of its numbers halved and doubled; those that it refuses are left out."""
    for field in fields(step):
        for changed in _changed(field.name, getattr(step, field.name), models):
            try:
                yield replace(step, **{field.name: changed})
            except ValueError:
                continue


def _changed(name: str, value: object, models: int) -> Iterator[object]:
    if name == "weights" and models > 1:
        listed = list(value) if isinstance(value, list) else [1.0] * models
        yield from (listed[:i] + [listed[i] * factor] + listed[i + 1:] for i in range(models) for factor in FACTORS)
    elif name in ("effort", "dim") or isinstance(value, bool) or not isinstance(value, (int, float)):
        return  # effort and dim are bought with time and memory
    elif isinstance(value, int):
        yield from sorted({max(1, round(value * factor)) for factor in FACTORS} - {value})
    else:
        yield from (value * factor for factor in FACTORS if value)


# What each step gains: the answers with it less those without it, over the same resampled queries.

@dataclass(frozen=True)
class Difference:
    """What the whole pipeline has more than another form of it, and the 95 % interval of that."""
    gain: float
    interval: tuple[float, float]

    def __str__(self) -> str:
        return f"{self.gain:+.4f} ({self.interval[0]:+.4f} to {self.interval[1]:+.4f})"


@dataclass(frozen=True)
class Gain:
    """A pipeline's figures beside those of another form of it."""
    change: str
    gap: float
    """Of the other form."""
    in_gap: Difference
    in_map: Difference | None
    """Of mAP@100 of the neighbors that the steps leave; None where a form leaves fewer than 100."""


def ablation(queries: QuerySet, pipeline: Pipeline, device: str = "cpu") -> list[Gain]:
    """A row for each step left out (for vote: the nearest neighbor alone), but search and those before a re-ranker."""
    def measured(steps: tuple[Step, ...]) -> tuple[float, NDArray[np.float64], NDArray[np.float64] | None]:
        found, labels = answer_and_rank(queries, Pipeline(steps), device)
        ranked = found.answers, found.confidences, queries.truths
        return (gap(*ranked, queries.keys), resampled_gaps(*ranked, keys=queries.keys),
                None if labels is None else precisions(queries, labels))

    best, drawn, whole = measured(pipeline.steps)

    def gain(change: str, steps: tuple[Step, ...]) -> Gain:
        value, resampled, less = measured(steps)
        in_map = None
        if whole is not None and less is not None and len(less):
            in_map = Difference(float((whole - less).mean()), interval(resampled_means(whole - less)))
        return Gain(change, value, Difference(best - value, interval(drawn - resampled)), in_map)

    return [gain(*_without(pipeline.steps, i)) for i, step in enumerate(pipeline.steps)
            if i >= pipeline.num_fixed and not isinstance(step, Search)]


def _without(steps: tuple[Step, ...], i: int) -> tuple[str, tuple[Step, ...]]:
    """Step i left out, or replaced by the nearest neighbor if it is the vote; with its name."""
    instead: tuple[Step, ...] = (Vote(1, 1.0, signed=True),) if isinstance(steps[i], Vote) else ()
    return f"without {type(steps[i]).__name__}", steps[:i] + instead + steps[i + 1:]


def ablation_table(split: str, rows: list[Gain]) -> str:
    """A line a step."""
    return "\n".join(f"{split:6}{row.change:32}{row.gap:8.4f}   the step gains {row.in_gap}"
                     + (f", in map@100 {row.in_map}" if row.in_map else "") for row in rows)
