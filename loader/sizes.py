"""The side of the training images: one for the whole run, or one that grows by epoch."""
from dataclasses import dataclass


@dataclass(frozen=True)
class GrowingSize:
    """From `first` to `last` pixels over so many `epochs`, linearly, in multiples of `step` (both ends excepted).

    Small images early save most of their compute (Tan and Le, "EfficientNetV2", ICML 2021, section 4; ffcv-imagenet
    trains so). Raises ValueError if first exceeds last, or either is not positive.
    """

    first: int
    last: int
    epochs: float
    step: int = 32

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.last:
            raise ValueError(f"the first size must be positive and at most the last; got {self.first} and {self.last}")

    def at(self, epoch: float) -> int:
        """Side of a global batch that begins `epoch` epochs after the start, pixels; never falling."""
        if epoch >= self.epochs:
            return self.last
        exact = self.first + (self.last - self.first) * epoch / self.epochs
        return min(self.last, max(self.first, int(exact) // self.step * self.step))
