"""A head for another list of classes that takes over the centres of an old one."""
from typing import Any

import numpy as np

from arcshard.console import UserError
from model.heads import MarginHead


def take_over(head: MarginHead, old: dict[str, Any], old_classes: int, row: np.ndarray) -> None:
    """Class c gets the centres that class row[c] had; where row[c] is -1 it keeps its own.

    old: state of a head of so many classes; what it holds beside centres is taken over where this kind of head has it.
    row: int64 (C,). Raises UserError unless both have as many centres a class, of one size.
    """
    ours = (head.centers, head.weight.shape[1])
    theirs = (len(old["weight"]) // old_classes, old["weight"].shape[1])
    if ours != theirs:
        raise UserError(f"a stage takes over as many centres a class as there were, of the same size; it has {ours[0]} "
                        f"of size {ours[1]}, the stage before had {theirs[0]} of {theirs[1]}: say classes new")
    row, centres = row[head.shard.classes], head.weight.detach().unflatten(0, (-1, head.centers))
    centres[row >= 0] = old["weight"].unflatten(0, (-1, head.centers))[row[row >= 0]].to(centres.device)
    head.load_state_dict({k: v for k, v in old.items() if k != "weight" and k in head.state_dict()}, strict=False)
