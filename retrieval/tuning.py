"""Numbers of steps that answer the queries of one split best: coordinate search, deterministic."""
from collections.abc import Callable, Iterator
from dataclasses import fields, replace

from retrieval.evaluation import Questions, answer
from retrieval.metrics import gap
from retrieval.pipeline import Pipeline
from retrieval.state import Step

FACTORS = (0.5, 2.0)
PASSES = 3


def tune(asked: Questions, start: Pipeline, device: str = "cpu",
         tried: Callable[[Pipeline, float], None] = lambda pipeline, value: None) -> tuple[Pipeline, float]:
    """The pipeline whose numbers were halved or doubled, one at a time, as long as GAP grew; and that GAP.

    At most PASSES rounds over all numbers, weights of models included, but those that a learned judge was fitted after;
    `tried` hears of each trial. What it finds is fitted to these queries: measure it on others.
    """
    def measure(pipeline: Pipeline) -> float:
        found = answer(asked, pipeline, device)
        value = gap(found.answers, found.confidences, asked.truths, asked.keys)
        tried(pipeline, value)
        return value

    best, value = start, measure(start)
    for _ in range(PASSES):
        before = value
        for i in range(start.num_fixed, len(start.steps)):
            for step in list(variants(best.steps[i], len(asked.models))):
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
    elif name == "effort" or isinstance(value, bool) or not isinstance(value, (int, float)):  # effort buys with time
        return
    elif isinstance(value, int):
        yield from sorted({max(1, round(value * factor)) for factor in FACTORS} - {value})
    else:
        yield from (value * factor for factor in FACTORS if value)
