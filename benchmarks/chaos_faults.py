"""What befalls a command: signals, a full disk, too little memory, a worker that dies, a clock that jumps."""
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from chaos_works import ROOT, Inputs, Work
from usage import descendants, peak

from tests.forked import Forked

AT_ONCE = 2  # trials
PATIENCE, HANG = 60, 10  # seconds, and times what the command takes undisturbed: longer is a hang
TRACEBACK = "Traceback (most recent call last)"
PAGE = os.sysconf("SC_PAGE_SIZE")
WORKER_MB = 60  # larger than joblib's helpers, smaller than a process that packs or trains


class Reference(NamedTuple):
    """The command undisturbed: what it made, in how many seconds, of how many bytes."""

    result: Any
    seconds: float
    size: int


@dataclass
class Trial:
    """One command, disturbed once, in a folder of its own; `faults` says what was not as it should be."""

    work: Work
    inputs: Inputs
    reference: Reference
    folder: Path
    rng: random.Random
    faults: list[str] = field(default_factory=list)
    refused: bool = False
    """It ended with one sentence and exit code 2, and went on when it was repeated."""
    starts: int = 0

    def start(self) -> Forked:
        """The command, in a process group of its own, from a process that has torch loaded: moments hit its work."""
        self.starts += 1
        self.noted().write_text("")  # it may be killed before it opens the file
        return Forked(*self.work.words(self.inputs, self.folder), env={**os.environ, **self.work.variables},
                      said=(Path(os.devnull), self.noted()), session=True)

    def start_anew(self, **variables: str) -> subprocess.Popen[bytes]:
        """The command in an interpreter of its own, which reads these variables when it starts."""
        words = [sys.executable, *map(str, self.work.words(self.inputs, self.folder))]
        self.starts += 1
        with open(self.noted(), "w") as noted:
            return subprocess.Popen(words, cwd=ROOT, env={**os.environ, **self.work.variables, **variables},
                                    stdout=subprocess.DEVNULL, stderr=noted, start_new_session=True)

    def noted(self) -> Path:
        """What the last start wrote to stderr."""
        return self.folder.with_name(f"{self.folder.name}.stderr-{self.starts}")

    def moment(self) -> None:
        """Wait for a random moment of the command's time."""
        time.sleep(self.rng.uniform(0, self.reference.seconds))

    def ended(self, process: Forked | subprocess.Popen[bytes]) -> int | None:
        """Wait for the end of the command and of all that it started; its exit code, None if it hangs."""
        limit = time.monotonic() + PATIENCE + HANG * self.reference.seconds
        while (code := process.poll()) is None or group_lives(process.pid):
            if time.monotonic() > limit:
                self.faults.append("hung")
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                code = None
                break
            time.sleep(0.02)
        if has_traceback(self.noted(), self.work.launcher):
            self.faults.append("traceback")
        return code

    def again(self) -> None:
        """The same command, undisturbed, must end with the reference's result."""
        code = self.ended(self.start())
        if code != 0:
            self.faults.append(f"lost: repeated, it ended with {code}")
        elif self.work.result(self.folder) != self.reference.result:
            self.faults.append("lost: another result")


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def has_traceback(noted: Path, launcher: bool) -> bool:
    """Whether stderr has a traceback; under a launcher, which prints its own, one with a line of a command of ours."""
    tracebacks = noted.read_text(errors="replace").split(TRACEBACK)[1:]
    ours = [line for text in tracebacks for line in text.splitlines()
            if f'File "{ROOT}/' in line and f"{ROOT}/tests/" not in line and "site-packages" not in line]
    return bool(ours if launcher else tracebacks)


def refer(work: Work, inputs: Inputs, folder: Path) -> Reference:
    """Run the command undisturbed, so often at once as trials run; twice, for the second time has warm caches."""
    for name in ("cold", "warm"):
        trials = [Trial(work, inputs, Reference(None, 300, 0), folder / f"{name}-{number}", random.Random(0))
                  for number in range(AT_ONCE)]
        for trial in trials:
            trial.folder.mkdir(parents=True)
            work.prepare(inputs, trial.folder)
        before, began = used(trials[0].folder), time.monotonic()
        processes = [trial.start() for trial in trials]
        for trial, process in zip(trials, processes):
            if trial.ended(process) != 0:
                raise RuntimeError(f"{work.name} fails undisturbed: {trial.noted().read_text()}")
        seconds = time.monotonic() - began
        results = [work.result(trial.folder) for trial in trials]
        if results[0] != results[1]:
            raise RuntimeError(f"{work.name} undisturbed gives two results")
    return Reference(results[0], seconds, used(trials[0].folder) - before)


def used(folder: Path) -> int:
    """Bytes of all files, in whole pages, as a tmpfs counts them."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.rglob("*") if path.is_file())


# Faults: each disturbs one trial, whose folder is prepared, and lets the command be repeated.


def sigkill(trial: Trial) -> None:
    """kill -9 of the command alone or of all its processes."""
    process = trial.start()
    trial.moment()
    kill = os.killpg if trial.rng.random() < 0.5 else os.kill
    with suppress(ProcessLookupError):
        kill(process.pid, signal.SIGKILL)
    trial.ended(process)
    trial.again()


def sigterm(trial: Trial) -> None:
    """SIGTERM to the command, as a batch system sends it."""
    process = trial.start()
    trial.moment()
    process.send_signal(signal.SIGTERM)
    trial.ended(process)
    trial.again()


def dead_worker(trial: Trial) -> None:
    """kill -9 of the largest process that the command started, as the kernel does when memory is short."""
    process = trial.start()
    trial.moment()
    if children := [pid for pid in descendants(process.pid) if peak(pid) > WORKER_MB]:
        with suppress(ProcessLookupError):
            os.kill(max(children, key=peak), signal.SIGKILL)
    if trial.ended(process) != 0:
        trial.refused = one_sentence(trial)
    trial.again()


def full_disk(trial: Trial) -> None:
    """A disk with room for a part of what the command writes; repeated when there is more."""
    room = used(trial.folder) + trial.rng.random() * trial.reference.size
    with small_disk(trial.folder, int(room) + PAGE):
        code = trial.ended(trial.start())
        if code != 0:
            trial.refused = one_sentence(trial)
            if code != 2 or not trial.refused:
                trial.faults.append(f"a full disk is exit code {code}: {trial.noted().read_text()[-300:]!r}")
        subprocess.run(["mount", "-o", "remount,size=1g", trial.folder], check=True)
        trial.again()


def short_memory(trial: Trial) -> None:
    """A control group of 20 to 640 MB beyond what was loaded before: where it does not suffice, the kernel kills."""
    with small_memory(int(20e6 * 32 ** trial.rng.random())) as members:
        process = trial.start()
        with suppress(ProcessLookupError):
            members.write_text(str(process.pid))
        if trial.ended(process) != 0:
            trial.refused = one_sentence(trial)
    trial.again()


V2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
GROUPS = Path("/sys/fs/cgroup" if V2 else "/sys/fs/cgroup/memory")


@contextmanager
def small_memory(limit: int) -> Iterator[Path]:
    """A control group of so many bytes; the file that takes the process ids of its members. All must end inside."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir=GROUPS))
    try:
        (folder / ("memory.max" if V2 else "memory.limit_in_bytes")).write_text(str(limit))
        yield folder / "cgroup.procs"
    finally:
        until = time.monotonic() + PATIENCE  # for ranks, which have sessions of their own
        while (folder / "cgroup.procs").read_text() and time.monotonic() < until:
            time.sleep(0.02)
        folder.rmdir()


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system in memory of that size in place of `folder`, with what the folder holds."""
    with tempfile.TemporaryDirectory() as before:
        shutil.copytree(folder, before, dirs_exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
        try:
            shutil.copytree(before, folder, dirs_exist_ok=True)
            yield
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def jumping_clock(trial: Trial) -> None:
    """The wall clock jumps by up to a day in either direction at every look."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "sitecustomize.py").write_text(
            "import random, time\n_now, _rng = time.time, random.Random(0)\n"
            "time.time = lambda: _now() + _rng.uniform(-86400, 86400)\n")
        path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
        code = trial.ended(trial.start_anew(PYTHONPATH=path))
    if code != 0 or trial.work.result(trial.folder) != trial.reference.result:
        trial.faults.append(f"lost: ended with {code} or another result")


def one_sentence(trial: Trial) -> bool:
    """Whether stderr, but for progress, is one line."""
    return len(said(trial.noted())) <= 1


def said(noted: Path) -> list[str]:
    """The lines of stderr that are no progress bar and no note of a repeated request."""
    lines = noted.read_text(errors="replace").replace("\r", "\n").splitlines()
    return [line for line in lines if line.strip() and "%|" not in line and "it/s" not in line]


Fault = Callable[[Trial], None]

FAULTS: dict[str, tuple[Fault, Sequence[str]]] = {
    "kill -9": (sigkill, ("pack", "append", "repair", "train", "train on 2 ranks", "embed", "export", "fetch")),
    "SIGTERM": (sigterm, ("pack", "append", "repair", "train", "train on 2 ranks", "embed", "export", "fetch")),
    "killed worker": (dead_worker, ("pack", "append", "train on 2 ranks")),
    "short memory": (short_memory, ("pack", "train", "train on 2 ranks")),
    "full disk": (full_disk, ("pack", "append", "repair", "train", "embed", "export", "fetch")),
    "jumping clock": (jumping_clock, ("pack", "train", "embed")),
}
"""The faults by name, and the commands that they befall."""
