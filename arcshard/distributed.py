"""The ranks of a run, whether torchrun started them or there is only this process."""
import ctypes
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from arcshard.console import UserError

PR_SET_PDEATHSIG = 1  # linux/prctl.h
# What gloo says, without its name, of an operation beside the one that timed out.
OTHER_TIMEOUT = "Application timeout caused pair closure"
START = timedelta(minutes=30)  # for what ranks do before their first step: weights, compilation


class RankLost(UserError):
    """Another rank died or does not answer."""

    code = 3


@dataclass(frozen=True)
class World:
    """This process among the ranks of a run, and the device that it computes on."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def log(self, sentence: str) -> None:
        """Print it once, whatever the number of ranks."""
        if self.is_main:
            print(sentence, flush=True)

    def any(self, flag: bool) -> bool:
        """Whether any rank's flag is set; all ranks must ask. One small message over gloo, no device sync."""
        if self.size == 1:
            return flag
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags.item())

    @property
    def ask_every(self) -> int:
        """Steps between two questions that need no answer at once: on a GPU `any` costs host time of each step."""
        return 10 if self.size > 1 and self.device.type == "cuda" else 1

    def wait(self) -> None:
        """Until all ranks are here."""
        self.any(False)

    def sum(self, *values: float) -> list[float]:
        """Sums over all ranks, in float64 on the CPU; all ranks must ask."""
        total = torch.tensor(values, dtype=torch.float64)
        if self.size > 1:
            dist.all_reduce(total)
        return total.tolist()

    def share(self, tensors: Sequence[torch.Tensor]) -> None:
        """Give all ranks the main rank's values of tensors of one dtype and device, in place; all ranks must ask."""
        if self.size > 1 and tensors:
            flat = torch.cat([t.detach().flatten() for t in tensors])
            dist.broadcast(flat, 0)
            for t, values in zip(tensors, flat.split([t.numel() for t in tensors])):
                t.detach().copy_(values.view_as(t))

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
    if "TORCHELASTIC_RUN_ID" in os.environ:  # a torchrun that is killed cannot stop its ranks: Linux does, with SIGTERM
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if size > 1:  # gloo carries the CPU's tensors, NCCL the GPU's
        dist.init_process_group("cpu:gloo,cuda:nccl" if use_cuda else "gloo", timeout=START, store=_meeting_place(),
                                rank=rank, world_size=size)
    return World(rank, size, where)


def _meeting_place() -> dist.Store:
    """Where the ranks find each other's addresses.

    torchrun lends them its own store, which after a restart still says where the dead ranks were (torch 2.14). So each
    try on one machine has keys of its own; agents of several machines count their tries apart (docs/distributed.md).
    """
    store, _, size = next(rendezvous("env://", timeout=START))
    alone = os.environ.get("LOCAL_WORLD_SIZE") == str(size)
    return dist.PrefixStore(f"try {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}" if alone else "ranks", store)


def set_timeout(seconds: float) -> None:
    """From now on a rank that does not answer for so long is lost."""
    if dist.is_initialized():
        # torch 2.11 has it under the private name alone, of which later versions warn.
        change = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout
        change(timedelta(seconds=seconds))


@contextmanager
def lost_rank_is_a_sentence(rank: int) -> Iterator[None]:
    """Raise RankLost where the block ends because the ranks' connection does."""
    try:
        yield
    except RuntimeError as error:  # gloo raises no subclass of it
        of_connection = isinstance(error, dist.DistError) or "gloo" in str(error) or OTHER_TIMEOUT in str(error)
        if not dist.is_initialized() or not of_connection:
            raise
        timed_out = "imed out" in str(error) or OTHER_TIMEOUT in str(error)
        reason = "it did not answer in time" if timed_out else "its connection ended"
        raise RankLost(f"all ranks must live, but rank {rank} lost another ({reason}): see what that one said; the "
                       "same command continues from the last checkpoint") from None


def stop() -> None:
    if dist.is_initialized():
        with suppress(RuntimeError):  # where a rank was lost there is nobody to take leave of
            dist.destroy_process_group()
