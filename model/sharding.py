"""The part of the classes that a rank holds, and the communication between ranks that it needs."""
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from arcshard.console import UserError


@dataclass(frozen=True)
class ClassShard:
    """The contiguous classes of rank `rank` of `size`; the first num_classes mod size ranks hold one more than others.

    All ranks must call `gather`, `sum`, `sum_to_rows` and `whole`, with tensors of one shape; with one rank these do
    nothing. The first three are queued on the device, and the host does not wait.
    Raises UserError if there are fewer classes than ranks.
    """

    num_classes: int
    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if self.num_classes < self.size:
            raise UserError(f"there are {self.num_classes} classes for {self.size} ranks, and with head.sharded each "
                            "rank needs one: start fewer ranks")

    def first(self, rank: int) -> int:
        """The first class of a rank; for rank = size, num_classes."""
        return rank * (self.num_classes // self.size) + min(rank, self.num_classes % self.size)

    @property
    def classes(self) -> slice:
        """The classes of this rank."""
        return slice(self.first(self.rank), self.first(self.rank + 1))

    def counts(self) -> list[int]:
        """Number of classes of each rank."""
        return [self.first(rank + 1) - self.first(rank) for rank in range(self.size)]

    def gather(self, rows: Tensor) -> Tensor:
        """The (n, …) of all ranks, one after another, (size·n, …)."""
        if self.size == 1:
            return rows
        whole = rows.new_empty(self.size * len(rows), *rows.shape[1:])
        dist.all_gather_into_tensor(whole, rows.contiguous())
        return whole

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the ranks, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def sum_to_rows(self, whole: Tensor) -> Tensor:
        """(size·n, …) summed over the ranks, of which each keeps its own (n, …): the adjoint of `gather`."""
        if self.size == 1:
            return whole
        rows = whole.new_empty(len(whole) // self.size, *whole.shape[1:])
        dist.reduce_scatter_tensor(rows, whole)
        return rows

    def own(self, whole: Tensor) -> Tensor:
        """This rank's rows of (num_classes·K, …)."""
        centers = len(whole) // self.num_classes
        return whole[self.classes.start * centers:self.classes.stop * centers]

    def whole(self, own: Tensor) -> Tensor:
        """The rows of all ranks, (num_classes·K, …), from this rank's."""
        if self.size == 1:
            return own
        most = max(self.counts()) * (len(own) // self.counts()[self.rank])
        padded = own.new_zeros(most, *own.shape[1:])
        padded[:len(own)] = own
        centers = len(own) // self.counts()[self.rank]
        return torch.cat([part[:count * centers] for part, count
                          in zip(self.gather(padded).split(most), self.counts())])
