"""A run's state in files that are either whole or not there: the latest, some before it, and the best."""
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO, cast
from zipfile import ZipFile

import torch

from arcshard import renamed
from arcshard.console import UserError
from arcshard.files import sha256, sync_folder, whole_file
from arcshard.untrusted import reason

NAME = "checkpoint.pt"
BEST = "checkpoint-best.pt"
NUMBERED = "checkpoint-{:012d}.pt"  # images seen
FORMAT = 2

Config = dict[str, dict[str, Any]]
"""Options by section and field, as `as_plain` gives them."""


@dataclass(frozen=True)
class Weights:
    """State dicts of a network; a sharded head's is whole."""

    embedder: dict[str, Any]
    head: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A run after an update. What evaluation needs comes first; the rest is for continuing the run."""

    config: Config
    """Of the stage."""
    weights: Weights = Weights({}, {})
    average: Weights | None = None
    """Of the weights over the last images, where train.ema keeps one."""
    packing: dict[str, Any] = field(default_factory=dict)
    """How the photos were packed, from the dataset's manifest."""
    stage: str = "main"
    stages: dict[str, Config] = field(default_factory=dict)
    """Of each stage that has begun, by name."""
    landmark_ids: list[str] = field(default_factory=list)
    """Of the stage's classes, in the order of their labels."""
    step: int = 0
    """Updates of the run."""
    position: int = 0
    """Images that the run has seen; the loader's own position is the stage's."""
    log: dict[str, float] = field(default_factory=dict)
    """Of the steps that no line of metrics.jsonl covers yet."""
    loader: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    loss_scale: dict[str, Any] | None = None
    """With train.amp fp16."""
    data: str | None = None
    """Fingerprint of the train split of the stage's dataset; without those of select.mix."""

    @property
    def trained_on(self) -> str | None:
        """`data`, which older versions left to the loader; None where theirs is of a whole mixture."""
        stream = self.loader.get("fingerprint", {})
        return self.data or (None if "mix" in stream else stream.get("dataset"))

    @property
    def best_weights(self) -> Weights:
        """To evaluate and answer with: the average where there is one."""
        return self.average or self.weights


def save(run: Path, checkpoint: Checkpoint) -> None:
    """Replace the run's checkpoint. Raises DiskFull."""
    state = {f.name: getattr(checkpoint, f.name) for f in fields(Checkpoint)}
    weights, average = state.pop("weights"), state.pop("average")
    with whole_file(run / NAME) as f:
        stream = _Stream(f)
        try:
            torch.save({"format": FORMAT, **state, **vars(weights), "ema": average and {**vars(average)}},
                       cast(BinaryIO, stream))
        except RuntimeError as error:
            raise stream.error or error from None


class _Stream:
    """A file for torch.save, which hides why a write failed behind a RuntimeError of its own."""

    def __init__(self, file: BinaryIO):
        self.file, self.flush = file, file.flush
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise


def keep(run: Path, position: int, count: int) -> None:
    """Keep the run's last `count` checkpoints, of which the latest is that of `position` images."""
    if count > 1:
        _copy(run / NAME, run / NUMBERED.format(position))
    older = sorted(run.glob(NUMBERED.replace("{:012d}", "[0-9]*")))
    for path in older[:-count] if count > 1 else older:
        path.unlink()


def keep_as_best(run: Path) -> None:
    """Let the run's latest checkpoint be its best as well."""
    _copy(run / NAME, run / BEST)


def _copy(source: Path, target: Path) -> None:
    """Another name for the file, which costs no room; a copy where the file system has no such thing.

    Only one process may write into the run, see train.py.
    """
    aside = target.with_name(target.name + ".part")
    aside.unlink(missing_ok=True)
    try:
        os.link(source, aside)
    except OSError:
        with open(source, "rb") as old, whole_file(target) as new:
            shutil.copyfileobj(old, new)
    else:
        os.replace(aside, target)
        aside.unlink(missing_ok=True)  # two names of one file are not replaced
        sync_folder(target.parent)


def load(run: Path, name: str = NAME) -> Checkpoint:
    """A checkpoint of the run, tensors on the CPU. Raises UserError if the folder has none, or another format's."""
    path = run / name
    if not path.is_file():
        others = ", ".join(sorted(p.name for p in run.glob("checkpoint*.pt")))
        raise UserError(f"{run} has no {NAME}, which train.py writes: give train.py's --out"
                        if not others else f"{run} has no {name}: give --checkpoint one of {others}")
    try:
        state = load_tensors(path)
    except ValueError as error:
        raise UserError(f"{path} {error}: restore it from a copy, or delete it to train again") from None
    found = state.get("format") if isinstance(state, dict) else None
    if found != FORMAT:
        raise UserError(f"{path} has checkpoint format {found!r:.40}, this version reads {FORMAT}: "
                        "use the version that wrote it")
    try:
        return _from_state(state)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a checkpoint ({type(error).__name__}): delete it to train again") from None


def load_tensors(path: Path) -> Any:
    """What torch.save wrote, tensors on the CPU; nothing in the file is executed.

    Raises ValueError unless it is whole, and holds only tensors, numbers, texts, lists and mappings. A tensor takes as
    many bytes of the file as it has: a few that stand for terabytes, repeated, are refused.
    """
    try:
        with ZipFile(path) as file:  # torch writes without compression, but reads a few bytes that become gigabytes
            if sum(member.file_size for member in file.infolist()) > path.stat().st_size:
                raise ValueError("compressed")
            damaged = file.testzip()  # torch does not compare the CRC32s that it wrote; 0.6 s for 1 GB
        if not damaged:
            with warnings.catch_warnings(action="ignore"):  # about other versions of pickle
                value = torch.load(path, map_location="cpu", weights_only=True)
            if any(tensor.nbytes > tensor.untyped_storage().nbytes() for tensor in _tensors(value)):
                raise ValueError("repeated")
            return value
    except OSError:
        raise
    except Exception as error:  # the parsers of zips, pickles and tensors raise nearly any type
        raise ValueError(f"is not a checkpoint ({type(error).__name__})") from None
    raise ValueError(f"is damaged (at {damaged})")


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Those within mappings and lists."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


@contextmanager
def fitting(run: Path, name: str = NAME) -> Iterator[None]:
    """Raise UserError if options and tensors of a checkpoint do not fit together, where the block uses them."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"{run / name} is not a checkpoint of this version ({type(error).__name__}: {reason(error)}): "
                        "use the version that wrote it") from error


def _from_state(state: dict[str, Any]) -> Checkpoint:
    for config in (state["config"], *state["stages"].values()):
        if not all(isinstance(section, dict) for section in config.values()):
            raise TypeError("config")
        _rename_values(config)
    weights, average = Weights(state.pop("embedder"), state.pop("head")), state.pop("ema")
    values = {f.name: state[f.name] for f in fields(Checkpoint) if f.name in state}
    if wrong := [name for name, kind in KINDS.items() if not isinstance(values.get(name, kind()), kind)]:
        raise TypeError(wrong[0])
    return Checkpoint(weights=weights, average=average and Weights(**average), **values)


KINDS = {"config": dict, "packing": dict, "stage": str, "stages": dict, "landmark_ids": list, "step": int,
         "position": int, "log": dict, "loader": dict, "optimizer": dict}
"""What fields of a Checkpoint are."""


def _rename_values(config: Config) -> None:
    for option, names in renamed.VALUES.items():
        section, _, key = option.partition(".")
        if config.get(section, {}).get(key) in names:
            config[section][key] = names[config[section][key]]


def fingerprint(run: Path, name: str = NAME) -> str:
    """sha256 of a checkpoint: embeddings belong to exactly one."""
    return sha256(run / name, show=True)
