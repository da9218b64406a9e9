"""A pipeline: a list of steps, read from YAML, that turns embeddings into the answers to queries."""
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jsonargparse import ArgumentError, ArgumentParser
from numpy.typing import NDArray

from arcshard.console import UserError, expand_home
from arcshard.presets import preset_file
from arcshard.untrusted import parse_yaml
from retrieval.metrics import NO_LANDMARK
from retrieval.state import Candidates, CountInliers, Need, State, Step, Vectors
from retrieval.steps import NAMES, STEPS, Rerank, Search, Vote

EXAMPLE = "a list such as [{search: {k: 5}}, {vote: {power: 8}}]"


@dataclass(frozen=True)
class Pipeline:
    """Steps in their order; `vote` must be among them."""
    steps: tuple[Step, ...] = (Search(5), Vote(5, 8.0))

    @property
    def needs(self) -> frozenset[Need]:
        """What at least one of the steps needs."""
        return frozenset().union(*(step.needs for step in self.steps))

    @property
    def num_fixed(self) -> int:
        """Steps at the front that must stay as they are, since a re-ranker was fitted after them."""
        return max((i for i, step in enumerate(self.steps) if isinstance(step, Rerank)), default=0)

    def answer(self, models: tuple[Vectors, ...], gallery_labels: NDArray[np.int64], device: str = "cpu",
               keys: Sequence[str] = (), inliers: CountInliers | None = None) -> Candidates:
        """Candidates of each query. Raises ValueError where a step does, for an empty gallery included."""
        return candidates(self.apply(State(models, gallery_labels, device, models, keys=keys, inliers=inliers)))

    def apply(self, state: State) -> State:
        """What the steps make of a state. Raises ValueError where a step does."""
        return reduce(lambda state, step: step(state), self.steps, state)


def candidates(state: State) -> Candidates:
    """Those of a state that holds some, -1 where there is none. Raises ValueError if it holds none at all."""
    found = state.candidates
    if found is None:
        raise ValueError("the steps find no answers: put search and vote into the pipeline")
    return replace(found, labels=np.where(np.isneginf(found.scores), NO_LANDMARK, found.labels))


def read_pipeline(path: Path) -> Pipeline:
    """The steps of a YAML file. Raises UserError for a file that holds no such list."""
    path = preset_file(path)
    try:
        listed = parse_yaml(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is no YAML ({' '.join(str(error).split())}): give {EXAMPLE}") from None
    if not isinstance(listed, list) or not listed:
        raise UserError(f"{path} holds no list of steps but {listed!r:.80}: give {EXAMPLE}")
    steps = tuple(_placed(_step(entry, path), path.parent) for entry in listed)
    if not any(isinstance(step, Vote) for step in steps):
        raise UserError(f"{path} has no vote, and so finds no answers: add one, as in {EXAMPLE}")
    for i, step in enumerate(steps):
        if isinstance(step, Rerank) and step.reranker().steps != write_pipeline(Pipeline(steps[:i])):
            raise UserError(f"{path}: {step.model} was fitted after other steps than stand before it here: fit it "
                            "again with python -m retrieval rerank")
    return Pipeline(steps)


def _step(entry: Any, path: Path) -> Step:
    name, numbers = next(iter(entry.items())) if isinstance(entry, dict) and len(entry) == 1 else (entry, {})
    if not isinstance(name, str) or name not in STEPS:
        raise UserError(f"{path}: {entry!r:.80} is no step: give one of {', '.join(STEPS)}, with its numbers")
    if not isinstance(numbers or {}, dict):
        raise UserError(f"{path}: {name} has {numbers!r:.80}: give its numbers by name, as in {EXAMPLE}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(STEPS[name])
    try:
        return STEPS[name](**parser.parse_object(numbers or {}).as_dict())
    except (ArgumentError, ValueError, TypeError) as error:
        raise UserError(f"{path}: {name}: {' '.join(str(error).split())}: its numbers are "
                        f"{', '.join(field.name for field in fields(STEPS[name])) or 'none'}") from None


def _placed(step: Step, folder: Path) -> Step:
    """The step, the file that it names taken from the folder of its list."""
    named = {name: str((folder / expand_home(path)).resolve()) for name in ("file", "model", "store")
             if (path := getattr(step, name, None))}
    return replace(step, **named)


def write_pipeline(pipeline: Pipeline) -> str:
    """YAML text that read_pipeline reads back equal."""
    return yaml.safe_dump([{NAMES[type(step)]: asdict(step)} for step in pipeline.steps], sort_keys=False)
