"""What ties a run to its checkpoint: the configuration that it began with, and the stage that it was in."""
from pathlib import Path
from typing import Any

from arcshard import checkpoint
from arcshard.config import as_plain, differences
from arcshard.console import UserError
from training import metrics_log
from training.schedules import passed
from training.stages import ONLY
from training.train_config import MAY_CHANGE, OF_DATA

Stages = dict[str, dict[str, Any]]
"""Name -> dataclasses by section, in order."""


def as_saved(stages: Stages, name: str) -> dict[str, Any]:
    """The configuration as a checkpoint of stage `name` holds it: of this stage, and of all that have begun."""
    plain = {stage: as_plain(**sections) for stage, sections in stages.items()}
    begun = list(plain)[:list(plain).index(name) + 1]
    return {"stage": name, "config": plain[name], "stages": {stage: plain[stage] for stage in begun}}


def saved_state(out: Path, stages: Stages, allow_changed_data: bool) -> dict[str, Any] | None:
    """The checkpoint to continue from, if there is one. Raises UserError if it belongs to another configuration."""
    if not (out / checkpoint.NAME).exists():
        return None
    saved = checkpoint.load(out)
    begun = list(saved["stages"])
    if list(stages)[:len(begun)] != begun:
        raise UserError(f"a run continues with the stages that it has begun, but those in {out} are {', '.join(begun)} "
                        f"and now there are {', '.join(stages)}: only later stages may change")
    may_change = MAY_CHANGE | (OF_DATA if allow_changed_data else set())
    ours = as_saved(stages, begun[-1])["stages"]
    changed = [change if name == ONLY else f"stages.{name}: {change}" for name in begun
               for change in differences(saved["stages"][name], ours[name], may_change)]
    if changed:
        raise UserError(f"a run continues with the configuration it began with, but in {out} {'; '.join(changed)}: "
                        "give the old values, or another --out")
    return saved


def owes_validation(out: Path, saved: dict[str, Any], epoch: int, finished: bool) -> bool:
    """Whether the step that the checkpoint ends with also ends an epoch, which nobody validated."""
    position = saved["loader"]["position"]
    ended = finished or passed(position - saved["config"]["train"]["global_batch"], position, epoch)
    lines = metrics_log.read(out, metrics_log.VALIDATION)
    return ended and all(line["position"] != saved["position"] for line in lines)
