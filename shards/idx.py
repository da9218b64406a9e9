"""DALI's index of a WebDataset tar, version 1.2: where each member's data lies.

A first line `v1.2 SAMPLES`, then one line a sample with `extension offset size name` for each of its members,
as DALI's wds2idx writes it (nvidia-dali 2.4, tools/wds2idx.py).
"""
import numpy as np

from shards.format import TAR_BLOCK


def idx_text(rows: np.ndarray, labels: np.ndarray) -> str:
    """Text of the .idx of one shard: `rows` its index rows (INDEX_DTYPE) in tar order, `labels` as many."""
    lines = [f"v1.2 {len(rows)}"]
    for key, offset, size, label in zip(rows["key"].tolist(), rows["offset"].tolist(), rows["size"].tolist(),
                                        labels.tolist()):
        name, label_offset = key.decode(), offset_after(offset, size)
        lines.append(f"jpg {offset} {size} {name}.jpg cls {label_offset} {len(str(label))} {name}.cls")
    return "\n".join(lines) + "\n"


def offset_after(offset: int, size: int) -> int:
    """Where the next member's data starts, one header block behind this one's `size` bytes at `offset`."""
    return offset + -(-size // TAR_BLOCK) * TAR_BLOCK + TAR_BLOCK
