"""torchrun with a number of machines that changes: two agents on loopback, of which one dies and another joins."""
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.forked import Forked
from training import log

ROOT = Path(__file__).parent.parent
TINY = ["--model.backbone", "test_efficientnet", "--model.weights", "none", "--model.dim", "16", "--train.size", "32",
        "--train.global_batch", "12", "--train.log_every", "1", "--train.device", "cpu", "--loader.num_threads", "1",
        "--train.epochs", "1000", "--train.checkpoint_every", "0.4"]


class Agent:
    """torchrun on one of at most two machines, with one rank; the first keeps the list of all (`is_host`)."""

    def __init__(self, port: int, dataset: Path, run: Path, is_host: bool = False):
        words = ["-m", "torch.distributed.run", "--nnodes", "1:2", "--nproc-per-node", "1", "--max-restarts", "3",
                 "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "elastic",
                 "--rdzv-conf", f"is_host={is_host},last_call_timeout=2,keep_alive_interval=1"]
        self.process = Forked(*words, "train.py", *TINY, "--data", dataset, "--out", run,
                              env=os.environ | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"})

    def world_size(self) -> int:
        """Ranks of the run, as this agent's own was told; 0 while it has none."""
        try:
            rank = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[-1]
            told = Path(f"/proc/{rank}/environ").read_text().split("\0")
        except (OSError, IndexError):
            return 0
        return next((int(word.partition("=")[2]) for word in told if word.startswith("WORLD_SIZE=")), 0)

    def lose(self) -> str:
        """Kill the agent and its rank at once, as if the machine were lost; returns what both said."""
        ranks = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in (self.process.pid, *map(int, ranks)):
            os.kill(pid, signal.SIGKILL)
        return "".join(self.process.communicate())


@pytest.mark.heavy
def test_a_run_goes_on_with_fewer_and_with_more_machines(dataset_path, tmp_path):
    """The second machine is lost, another takes its place, and that one's agent is killed without its rank.

    The global batch, and so the steps, stay the same; only the lost machine costs what came after a checkpoint.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run, agents = tmp_path / "run", []

    def until(ranks, more=5):
        """Wait until so many ranks have taken some steps."""
        limit, enough = time.monotonic() + 120, None
        while enough is None or len(log.read(run)) < enough:
            assert time.monotonic() < limit and agents[0].process.poll() is None
            if {agent.world_size() for agent in agents} != {ranks}:
                enough = None
            elif enough is None:
                enough = len(log.read(run)) + more
            time.sleep(0.05)

    try:
        agents.append(Agent(port, dataset_path, run, is_host=True))
        agents.append(Agent(port, dataset_path, run))
        until(ranks=2)
        agents.pop().lose()
        until(ranks=1)
        agents.append(Agent(port, dataset_path, run))
        until(ranks=2)
        agents[1].process.kill()
        agents.pop().process.communicate(timeout=60)  # ends when its rank does, which holds the other end
        until(ranks=1)
    finally:
        said = [agent.lose() for agent in agents]
    positions = [line["position"] for line in log.read(run)]
    assert positions == list(range(12, 12 * len(positions) + 1, 12)), said
    assert said[0].count("rank 0 lost another (its connection ended)") == 1, said
    assert said[0].count("the same command continues\n") == 2, said
