"""Which classes stand against a batch's own, drawn by a counter: the same key draws the same, on any device.

Source: An et al., "Killing two birds with one stone: Efficient and robust training of face recognition CNNs by
Partial FC", CVPR 2022.
"""
import torch
from torch import Tensor

MASK = {bits: (1 << 64 - bits) - 1 for bits in (27, 30, 31)}  # makes >> of a signed word that of an unsigned one


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


GOLDEN, FIRST, SECOND = (_signed(word) for word in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def mix64(x: Tensor) -> Tensor:
    """SplitMix64's finaliser on the bits of int64 words: that of loader/hashing.py, where the batch is."""
    x = (x ^ (x >> 30 & MASK[30])) * FIRST
    x = (x ^ (x >> 27 & MASK[27])) * SECOND
    return x ^ (x >> 31 & MASK[31])


def draw(key: Tensor, first: int, count: int, number: int, labels_B: Tensor, held_B: Tensor) -> Tensor:
    """`number` of the classes first … first + count - 1, as rising places int64 (number,) among these.

    All classes of the batch are among them, if number >= B; the others are drawn evenly. No host sync.

    Args:
        key: int64 scalar.
        labels_B: place of each photo's class, 0 … count - 1, where held_B; anything elsewhere.
    """
    classes = torch.arange(first, first + count + 1, device=labels_B.device)  # the last one only takes what is not held
    scores = mix64(mix64(key + GOLDEN) + classes * GOLDEN) & torch.iinfo(torch.int64).max
    scores.scatter_(0, torch.where(held_B, labels_B, count), torch.iinfo(torch.int64).max)
    return scores[:count].topk(number, sorted=False).indices.sort().values
