"""Commands in processes forked from one that has torch and DALI loaded: 0.04 s to start instead of 5.

For what needs a process of its own and nothing of how it is started: ranks without torchrun, signals, kills.
"""
import atexit
import functools
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from unittest import mock

from tests.commands import ROOT, run_as_main

_lock = threading.Lock()  # multiprocessing looks at all its processes whenever one starts or is asked for its end


@functools.cache
def _server() -> ForkServerContext:
    """The process that forks, with everything loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["train", "tests.forked"])
    with mock.patch.dict(os.environ, PYTHONPATH=str(ROOT)):  # Python 3.11's has the path of nobody
        forkserver.ensure_running()
    return context


class Forked:
    """A command that runs, with the methods of subprocess.Popen that tests use; what it says goes to two files.

    said: those of stdout and stderr. session: in a process group of its own.
    """

    def __init__(self, *words: object, env: Mapping[str, str] | None = None, said: Sequence[Path] = (),
                 session: bool = False):
        if not said:
            folder = Path(tempfile.mkdtemp())
            weakref.finalize(self, shutil.rmtree, folder)
            said = [folder / "stdout", folder / "stderr"]
        self._said = said
        self.args = [str(word) for word in words]
        self._process = _server().Process(target=_run, daemon=True, args=(
            self.args, said, dict(env or os.environ), session))
        with _lock:
            self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """The exit code, or minus the signal that ended it; None while it runs."""
        with _lock:
            return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """Wait for its end; returns stdout and stderr. Raises subprocess.TimeoutExpired, and then it still runs."""
        self._process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        out, err = (said.read_text() if said.exists() else "" for said in self._said)  # killed before it began: none
        return out, err


def _run(words: list[str], said: Sequence[Path], env: dict[str, str], session: bool) -> None:
    if session:
        os.setsid()
    multiprocessing.current_process().daemon = False  # it may have children: only its own end is that of the tests
    for number, path in enumerate(said, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(ROOT)
    atexit._clear()  # of the process that forked
    try:
        run_as_main(words)
    finally:  # as an interpreter does; multiprocessing would wait for all children first, joblib's idle ones too
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()


def ranks_of(count: int) -> list[dict[str, str]]:
    """The environment of each rank, as torchrun sets it on one machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(count),
                  "LOCAL_WORLD_SIZE": str(count)}
    return [{**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


@contextmanager
def started_ranks(count: int, *words: object) -> Iterator[list[Forked]]:
    """A command on so many ranks; what still runs at the end is killed."""
    with ExitStack() as ends:
        ranks = []
        for env in ranks_of(count):
            ranks.append(Forked(*words, env=env))
            ends.callback(ranks[-1].kill)
        yield ranks


def run_ranks(count: int, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a command on so many ranks: the first exit code that is not 0, and what all said, in the order of ranks."""
    with started_ranks(count, *words) as ranks:
        said = [rank.communicate() for rank in ranks]
    codes = [rank.returncode or 0 for rank in ranks]
    return subprocess.CompletedProcess(ranks[0].args, next(filter(None, codes), 0), *map("".join, zip(*said)))
