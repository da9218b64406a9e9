"""Carry labels over from one dataset to another."""
from collections.abc import Sequence

import numpy as np


def label_map(old_ids: Sequence[str], new_ids: Sequence[str]) -> np.ndarray:
    """The old label of each new class, -1 where it had none: int64 (C_new,).

    old_ids, new_ids: landmark ids, each once, position = label. Row i of a new head is row label_map(...)[i] of the
    old one.
    """
    old_label = {landmark: label for label, landmark in enumerate(old_ids)}
    return np.array([old_label.get(landmark, -1) for landmark in new_ids], np.int64)
