"""Find the numbers of a pipeline's steps that answer the queries of one split best; measure what each step gains."""
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

from retrieval.evaluation import QuerySet, answer
from retrieval.metrics import gap, interval, resampled_gaps
from retrieval.pipeline import Pipeline
from retrieval.state import Step
from retrieval.steps import Search, Vote

FACTORS = (0.5, 2.0)
PASSES = 3


def tune(queries: QuerySet, start: Pipeline, device: str = "cpu",
         tried: Callable[[Pipeline, float], None] = lambda pipeline, value: None) -> tuple[Pipeline, float]:
    """Coordinate search: numbers are halved or doubled, one at a time, as long as GAP grows; the best and its GAP.

    At most PASSES rounds over all numbers, weights of models included, except those of steps before a re-ranker.
    `tried` is called after each trial. The result is fitted to these queries: measure it on others.
    """
    def measure(pipeline: Pipeline) -> float:
        found = answer(queries, pipeline, device)
        value = gap(found.answers, found.confidences, queries.truths, queries.keys)
        tried(pipeline, value)
        return value

    best, value = start, measure(start)
    for _ in range(PASSES):
        before = value
        for i in range(start.num_fixed, len(start.steps)):
            for step in list(variants(best.steps[i], len(queries.models))):
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
class Gain:
    """A pipeline's GAP beside that of another form of it."""
    change: str
    gap: float
    """Of the other form."""
    gain: float
    """What the whole pipeline has more."""
    interval: tuple[float, float]
    """Of the gain, 95 %."""


def ablation(queries: QuerySet, pipeline: Pipeline, device: str = "cpu") -> list[Gain]:
    """A row for each step left out (for vote: the nearest neighbor alone), but search and those before a re-ranker."""
    whole = answer(queries, pipeline, device)
    ranked = whole.answers, whole.confidences, queries.truths
    best, drawn = gap(*ranked, queries.keys), resampled_gaps(*ranked, keys=queries.keys)

    def gain(change: str, steps: tuple[Step, ...]) -> Gain:
        other = answer(queries, Pipeline(steps), device)
        ranked = other.answers, other.confidences, queries.truths
        value = gap(*ranked, queries.keys)
        return Gain(change, value, best - value, interval(drawn - resampled_gaps(*ranked, keys=queries.keys)))

    return [gain(*_without(pipeline.steps, i)) for i, step in enumerate(pipeline.steps)
            if i >= pipeline.num_fixed and not isinstance(step, Search)]


def _without(steps: tuple[Step, ...], i: int) -> tuple[str, tuple[Step, ...]]:
    """Step i left out, or replaced by the nearest neighbor if it is the vote; with its name."""
    instead: tuple[Step, ...] = (Vote(1, 1.0, signed=True),) if isinstance(steps[i], Vote) else ()
    return f"without {type(steps[i]).__name__}", steps[:i] + instead + steps[i + 1:]


def ablation_table(split: str, rows: list[Gain]) -> str:
    """A line a step."""
    return "\n".join(f"{split:6}{row.change:32}{row.gap:8.4f}   the step gains {row.gain:+.4f} "
                     f"({row.interval[0]:+.4f} to {row.interval[1]:+.4f})" for row in rows)
