"""Stages of a run: a named mapping, in which each stage holds what differs from the run's own options.

    stages:
      low: {epochs: 10, size: 256}
      high: {epochs: 6, size: 448, lr: 0.01, head: {margin: 0.4}, data: data/full, classes: remap}

A stage's bare names are those of train; head, select and view are sections of their own; data and classes say what it
trains on. On the command line --stages.high.lr 0.02 changes one field of one stage, whatever the presets say. Each
stage begins with the weights of the one before, a new optimizer, and schedules and epochs of its own.
"""
import copy
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from arcshard.console import UserError

ONLY = "main"  # the stage of a run that names none
FLAG = "--stages."
OF_THE_RUN = ("seed", "device")  # of train: a stage cannot have its own


@dataclass(frozen=True)
class StageConfig:
    """What a stage has beside its share of the other sections."""

    data: str | None = None
    """Its dataset folder; null: --data."""
    classes: Literal["keep", "remap", "new"] = "keep"
    """What becomes of the head's centres when the stage begins: keep: the classes are the same; remap: each takes its
    centres along by its landmark id, new classes begin with random ones; new: all do (3rd place 2020)."""

    def __post_init__(self) -> None:
        if self.classes not in ("keep", "remap", "new"):
            raise ValueError(f"classes must be keep, remap or new; got {self.classes!r}")


def split_flags(words: list[str]) -> tuple[list[str], list[tuple[list[str], Any]]]:
    """Take the flags of single stages' fields out of the command line: the other words, and (path, value) of each."""
    rest, changes, given = [], [], iter(words)
    for word in given:
        if not word.startswith(FLAG):
            rest.append(word)
            continue
        path, equals, text = word.removeprefix(FLAG).partition("=")
        if not equals and (text := next(given, "--")).startswith("--"):
            raise UserError(f"{word} needs a value, as in {FLAG}high.lr 0.01")
        if "." not in path:
            raise UserError(f"{word} must name a field of a stage, as in {FLAG}high.lr 0.01")
        changes.append((path.split("."), yaml.safe_load(text)))
    return rest, changes


def merge(stages: dict[str, Any], changes: list[tuple[list[str], Any]]) -> dict[str, Any]:
    """The mapping with the command line's changes in it. Raises UserError if they name a stage that it lacks."""
    merged = copy.deepcopy(stages)
    for (name, *path, field), value in changes:
        if name not in merged:
            raise UserError(f"{FLAG}{name}: stages are those of the preset: {', '.join(merged) or 'it has none'}")
        section = merged[name]
        for part in path:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise UserError(f"{FLAG}{'.'.join([name, *path, field])}: {part} is no section of a stage")
        section[field] = value
    return merged


def options(name: str, diff: dict[str, Any], run: dict[str, Any]) -> tuple[StageConfig, dict[str, Any]]:
    """A stage's own part, and the run's sections ({section: {field: value}}) with its differences in them.

    Raises UserError for what a stage cannot have.
    """
    own, sections = {}, copy.deepcopy(run)
    for key, value in diff.items():
        if key in ("data", "classes"):
            own[key] = value
        elif key == "model" or key in OF_THE_RUN or key == "train":
            raise UserError(f"stages.{name}.{key}: " + (
                "a stage's bare names are those of train: leave out train" if key == "train" else
                f"all stages of a run have the same {key}: give it to the run"))
        elif key in sections:
            if not isinstance(value, dict):
                raise UserError(f"stages.{name}.{key} must be a mapping of its fields; got {value!r}")
            sections[key] |= value
        else:
            sections["train"][key] = value
    try:
        return StageConfig(**own), sections
    except ValueError as error:
        raise UserError(f"stages.{name}: {error}") from None


def check_classes(name: str, classes: str, before: list[str], now: list[str]) -> None:
    """Raise UserError if the head is to be kept though the landmark ids, in the order of the labels, are others."""
    if classes == "keep" and before != now:
        raise UserError(f"stages.{name} keeps the classes of the stage before it, which had {len(before):,}; its "
                        f"dataset has {len(now):,} or others: say classes remap or new")
