"""What each step gains: the answers with it less those without it, over the same resampled queries."""
from dataclasses import dataclass

from retrieval.bootstrap import interval, resampled_gaps
from retrieval.evaluation import Questions, answer
from retrieval.metrics import gap
from retrieval.pipeline import Pipeline
from retrieval.state import Step
from retrieval.steps import Search, Vote


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


def ablation(asked: Questions, pipeline: Pipeline, device: str = "cpu") -> list[Gain]:
    """A row for each step left out (vote: the nearest neighbour alone); search and what a judge rests on cannot be."""
    whole = answer(asked, pipeline, device)
    ranked = whole.answers, whole.confidences, asked.truths
    best, drawn = gap(*ranked, asked.keys), resampled_gaps(*ranked, keys=asked.keys)

    def gain(change: str, steps: tuple[Step, ...]) -> Gain:
        other = answer(asked, Pipeline(steps), device)
        ranked = other.answers, other.confidences, asked.truths
        value = gap(*ranked, asked.keys)
        return Gain(change, value, best - value, interval(drawn - resampled_gaps(*ranked, keys=asked.keys)))

    return [gain(*_without(pipeline.steps, i)) for i, step in enumerate(pipeline.steps)
            if i >= pipeline.num_fixed and not isinstance(step, Search)]


def _without(steps: tuple[Step, ...], i: int) -> tuple[str, tuple[Step, ...]]:
    """Step i left out, or replaced by the nearest neighbour if it is the vote; with its name."""
    instead: tuple[Step, ...] = (Vote(1, 1.0, signed=True),) if isinstance(steps[i], Vote) else ()
    return f"without {type(steps[i]).__name__}", steps[:i] + instead + steps[i + 1:]


def ablation_table(split: str, rows: list[Gain]) -> str:
    """A line a step."""
    return "\n".join(f"{split:6}{row.change:32}{row.gap:8.4f}   the step gains {row.gain:+.4f} "
                     f"({row.interval[0]:+.4f} to {row.interval[1]:+.4f})" for row in rows)
