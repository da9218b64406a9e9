"""The ranks of a run, whether torchrun started them or there is only this process."""
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from arcshard.console import UserError, say
from arcshard.files import Locked, folder_lock
from arcshard.workers import signal_when_parent_dies

# gloo's message, without its name, for an operation beside the one that timed out.
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
        """Print it on the main rank alone."""
        if self.is_main:
            say(sentence)

    def any(self, flag: bool) -> bool:
        """Whether any rank's flag is set; all ranks must call. One small message over gloo, no device sync."""
        if self.size == 1:
            return flag
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags.item())

    @contextmanager
    def lock(self, folder: Path) -> Iterator[None]:
        """Hold `folder_lock` on the main rank; all ranks must call, and raise Locked if another process holds it."""
        locked = False
        with ExitStack() as stack:
            if self.is_main:
                try:
                    stack.enter_context(folder_lock(folder))
                except Locked:
                    locked = True
            if self.any(locked):
                raise Locked(folder)
            yield

    @property
    def ask_every(self) -> int:
        """Steps between two calls of `any` that are not urgent: on a GPU each costs host time."""
        return 10 if self.size > 1 and self.device.type == "cuda" else 1

    def wait(self) -> None:
        """Wait until all ranks have called this."""
        self.any(False)

    def sum(self, *values: float) -> list[float]:
        """Sums over all ranks, in float64 on the CPU; all ranks must call."""
        total = torch.tensor(values, dtype=torch.float64)
        if self.size > 1:
            dist.all_reduce(total)
        return total.tolist()

    def share(self, tensors: Sequence[torch.Tensor]) -> None:
        """Give all ranks the main rank's values of tensors of one dtype and device, in place; all ranks must call."""
        if self.size > 1 and tensors:
            flat = flattened(tensors)
            dist.broadcast(flat, 0)
            copy_flat(flat, tensors)

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Sum of a tensor over all ranks, on its device; all ranks must call."""
        if self.size > 1:
            dist.all_reduce(values)
        return values


def flattened(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The values of one or more tensors of one dtype and device, one after another, (n,): one message or kernel."""
    return torch.cat([t.detach().flatten() for t in tensors])


def copy_flat(flat: torch.Tensor, tensors: Sequence[torch.Tensor]) -> None:
    """Set the tensors' values to those of `flattened`, in place."""
    values = flat.split([t.numel() for t in tensors])
    torch._foreach_copy_([t.detach() for t in tensors], [v.view_as(t) for v, t in zip(values, tensors)])


def start(device: str) -> World:
    """Join the other ranks. device: "auto" (CUDA where there is one), "cpu" or "cuda"."""
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    use_cuda = device == "cuda" or device == "auto" and torch.cuda.is_available()
    where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if use_cuda else torch.device("cpu")
    if use_cuda and (where.index or 0) >= torch.cuda.device_count():
        raise UserError(f"there is no GPU for process {where.index} of this node: train.device cuda needs a GPU for "
                        f"each process, and there are {torch.cuda.device_count()}; start fewer processes, or use cpu")
    if use_cuda:
        torch.cuda.set_device(where)
    if "TORCHELASTIC_RUN_ID" in os.environ:  # a killed torchrun cannot stop its ranks: let Linux do so, with SIGTERM
        signal_when_parent_dies(signal.SIGTERM)
        if os.getppid() == 1 and b"torch" not in Path("/proc/1/cmdline").read_bytes():  # it was killed before
            sys.exit(128 + signal.SIGTERM)
    if size > 1:  # gloo carries the CPU's tensors, NCCL the GPU's
        dist.init_process_group("cpu:gloo,cuda:nccl" if use_cuda else "gloo", timeout=START, store=_meeting_place(),
                                rank=rank, world_size=size)
    return World(rank, size, where)


def _meeting_place() -> dist.Store:
    """The store in which the ranks find each other's addresses.

    torchrun shares its own store, which after a restart still holds the addresses of the dead ranks (torch 2.14). So on
    one machine each restart gets its own keys; on several, agents count restarts separately (docs/distributed.md).
    """
    store, _, size = next(rendezvous("env://", timeout=START))
    one_machine = os.environ.get("LOCAL_WORLD_SIZE") == str(size)
    return dist.PrefixStore(f"try {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}" if one_machine else "ranks", store)


def set_timeout(seconds: float) -> None:
    """From now on, count a rank as lost that does not answer for so many seconds."""
    if dist.is_initialized():
        # torch 2.11 has only the private name, for which later versions warn.
        change = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout
        change(timedelta(seconds=seconds))


@contextmanager
def lost_rank_is_a_sentence(rank: int) -> Iterator[None]:
    """Raise RankLost if the block fails because the connection of the ranks does."""
    try:
        yield
    except RuntimeError as error:  # gloo raises no subclass of it
        of_connection = isinstance(error, dist.DistError) or "gloo" in str(error) or OTHER_TIMEOUT in str(error)
        if not dist.is_initialized() or not of_connection:
            raise
        timed_out = "imed out" in str(error) or OTHER_TIMEOUT in str(error)
        reason = "it did not answer in time" if timed_out else "its connection ended"
        raise RankLost(f"rank {rank} lost another ({reason}): see that rank's own message; the same command "
                       "continues from the last checkpoint") from None


def stop() -> None:
    if dist.is_initialized():
        with suppress(RuntimeError):  # if a rank was lost, the group cannot be closed in order
            dist.destroy_process_group()
