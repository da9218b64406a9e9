"""TensorBoard and Weights & Biases: the numbers of the run's logs as curves over images seen."""
import importlib
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from arcshard.console import UserError
from arcshard.files import write_text
from training.metrics_log import NAME, VALIDATION, MetricsLog, Sink, read

KINDS = {"none": (), "tensorboard": ("tensorboard",), "wandb": ("wandb",), "both": ("tensorboard", "wandb")}
PREFIX = {NAME: "train", VALIDATION: "val"}


@contextmanager
def watched(log: MetricsLog, kind: str) -> Iterator[None]:
    """Let the log's lines go where `train.watch` says as well; all is written when the block ends.

    Raises UserError, on all ranks, for a package that is missing, and where W&B does not start.
    """
    for package in KINDS[kind]:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UserError(f"train.watch {kind} needs the package {package}, which is missing: "
                            "pip install -e '.[watch]', or say none") from error
    with ExitStack() as stack:
        if log.world.is_main:
            log.sinks = [stack.enter_context(SINKS[package](log)) for package in KINDS[kind]]
        yield


def numbers(name: str, line: dict[str, Any]) -> dict[str, float]:
    """What of a log's line can be drawn, under the names of its curves; empty for a log that has none."""
    if name not in PREFIX:
        return {}
    return {f"{PREFIX[name]}/{key.removeprefix('val_')}": float(value) for key, value in line.items()
            if key not in ("step", "position") and isinstance(value, int | float)}


@contextmanager
def tensorboard(log: MetricsLog) -> Iterator[Sink]:
    """RUN/tensorboard, which begins with what the logs have.

    Readers forget what a killed run left beyond the position where this one goes on (purge_step), so that no point is
    there twice.
    """
    from torch.utils.tensorboard import SummaryWriter
    folder = log.run / "tensorboard"
    begun = any(folder.glob("events.*"))
    with SummaryWriter(folder, purge_step=log.position + 1) as writer:  # type: ignore[no-untyped-call]
        def sink(name: str, line: dict[str, Any]) -> None:
            for tag, value in numbers(name, line).items():
                writer.add_scalar(tag, value, line["position"])
            writer.flush()  # a kill costs no line that a checkpoint follows

        for name in () if begun else PREFIX:
            for line in read(log.run, name):
                sink(name, line)
        yield sink


@contextmanager
def wandb(log: MetricsLog) -> Iterator[Sink]:
    """A run of W&B's project arcshard, its id kept in RUN/wandb-id.

    W&B takes no step that is not later than its last: of what a killed run had sent, nothing is there twice.
    """
    import wandb as package
    run, kept = log.run, log.run / "wandb-id"
    if not kept.exists():
        write_text(kept, secrets.token_hex(4))
    try:
        session = package.init(project="arcshard", name=run.resolve().name, id=kept.read_text(), resume="allow",
                               dir=run, settings=package.Settings(console="off"))
    except package.Error as error:
        raise UserError(f"W&B does not start ({error}): log in (wandb login), set WANDB_MODE=offline, "
                        "or take wandb out of train.watch") from error
    with session:
        yield lambda name, line: session.log(numbers(name, line), step=line["position"])


SINKS = {"tensorboard": tensorboard, "wandb": wandb}
