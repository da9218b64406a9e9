"""The ranks of a run, whether torchrun started them or there is only this process."""
import os
from dataclasses import dataclass

import torch
import torch.distributed as dist

from arcshard.console import UserError


@dataclass(frozen=True)
class World:
    """This process among the ranks of a run, and the device that it computes on."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether any rank's flag is set; all ranks must ask. One small message over gloo, no device sync."""
        if self.size == 1:
            return flag
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags.item())

    def sum(self, *values: float) -> list[float]:
        """Sums over all ranks, in float64 on the CPU; all ranks must ask."""
        total = torch.tensor(values, dtype=torch.float64)
        if self.size > 1:
            dist.all_reduce(total)
        return total.tolist()

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Sum of a tensor over all ranks, on its device; all ranks must ask."""
        if self.size > 1:
            dist.all_reduce(values)
        return values


def start(device: str) -> World:
    """Join the other ranks. device: "auto" (CUDA where there is one), "cpu" or "cuda"."""
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    use_cuda = device == "cuda" or device == "auto" and torch.cuda.is_available()
    where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if use_cuda else torch.device("cpu")
    if use_cuda and (where.index or 0) >= torch.cuda.device_count():
        raise UserError(f"train.device cuda needs a GPU for each process of this node; this is process {where.index} "
                        f"and there are {torch.cuda.device_count()} GPUs: start fewer, or use cpu")
    if use_cuda:
        torch.cuda.set_device(where)
    if size > 1:  # gloo carries the CPU's tensors, NCCL the GPU's
        dist.init_process_group("cpu:gloo,cuda:nccl" if use_cuda else "gloo")
    return World(rank, size, where)


def stop() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
