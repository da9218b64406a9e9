"""DALI's index of a WebDataset tar, version 1.2: where each member's data lies.

A first line `v1.2 SAMPLES`, then one line a sample with `extension offset size name` for each of its members in their
order, as DALI's wds2idx writes it (nvidia-dali 2.4, wds2idx.py).
"""
import numpy as np

from shards.format import TAR_BLOCK


def idx_text(rows: np.ndarray, labels: np.ndarray, label_offsets: np.ndarray | None = None) -> str:
    """Text of the .idx of one shard: `rows` its index rows (INDEX_DTYPE) in tar order, `labels` as many.

    label_offsets: where each label's bytes begin in the tar; None: behind its photo, as write_tar puts them.
    """
    if label_offsets is None:
        label_offsets = offset_after(rows["offset"], rows["size"])
    lines = [f"v1.2 {len(rows)}"]
    for key, offset, size, label, label_offset in zip(rows["key"].tolist(), rows["offset"].tolist(),
                                                      rows["size"].tolist(), labels.tolist(), label_offsets.tolist()):
        name = key.decode()
        photo = f"jpg {offset} {size} {name}.jpg"
        text = f"cls {label_offset} {len(str(label))} {name}.cls"
        lines.append(f"{photo} {text}" if offset < label_offset else f"{text} {photo}")
    return "\n".join(lines) + "\n"


def offset_after(offset: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Where the next member's data starts, one header block behind these `size` bytes at `offset`."""
    return offset + -(-size.astype(np.int64) // TAR_BLOCK) * TAR_BLOCK + TAR_BLOCK
