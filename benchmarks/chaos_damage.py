"""Damage to what the commands wrote, found by the next command; a server that errs; wrong uploads to the web page."""
import http.client
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from chaos_faults import TRACEBACK, Trial, one_sentence
from chaos_works import ROOT, TRAIN, Inputs, Work, files, nothing, trained

from tests import faulty_s3


class Target(NamedTuple):
    """Files that are damaged, and the command that reads them next.

    work: copies the files, and reads them. damaged: where they lie in the trial's folder. found: the exit codes that
    name the damage; with 0 the result must be the reference's, if `exact`.
    """

    work: Work
    damaged: str
    found: tuple[int, ...] = (2,)
    exact: bool = True


def copied(attribute: str, name: str) -> Callable[[Inputs, Path], None]:
    def prepare(inputs: Inputs, folder: Path) -> None:
        shutil.copytree(getattr(inputs, attribute), folder / name)
    return prepare


def stopped_run(inputs: Inputs, folder: Path) -> None:
    """A run that was killed after its first checkpoint."""
    made = inputs.folder / "stopped"
    if not made.exists():
        words = [*TRAIN, "--data", inputs.dataset, "--out", made]
        process = subprocess.Popen([sys.executable, *map(str, words)], cwd=ROOT,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (made / "checkpoint.pt").exists() and process.poll() is None:
            time.sleep(0.02)
        process.kill()
        process.wait()
    shutil.copytree(made, folder / "run")


def neighbors_found(folder: Path) -> dict[str, bytes]:
    with np.load(folder / "neighbors.npz") as arrays:
        return {name: arrays[name].tobytes() for name in arrays}


def checkpoint_alone(inputs: Inputs, folder: Path) -> None:
    (folder / "run").mkdir()
    shutil.copy(inputs.run / "checkpoint.pt", folder / "run")


def embeddings(folder: Path) -> dict[str, str]:
    """The store but for its record, which names the checkpoint by the sha256 of its file, padding included."""
    return {name: digest for name, digest in files(folder / "store").items() if not name.endswith(".json")}


TARGETS = {
    "dataset, then verify": Target(
        Work("verify", copied("dataset", "dataset"), lambda i, f: ["-m", "shards", "verify", f / "dataset"],
             lambda f: None), "dataset", (1, 2)),
    "dataset, then train": Target(
        Work("train on damaged data", copied("dataset", "dataset"),
             lambda i, f: [*TRAIN, "--data", f / "dataset", "--out", f / "run"], lambda f: None), "dataset"),
    "run, then continued": Target(
        Work("continue", stopped_run, lambda i, f: [*TRAIN, "--data", i.dataset, "--out", f / "run"],
             lambda f: trained(f / "run")), "run"),
    "checkpoint, then embed": Target(
        Work("embed with a damaged checkpoint", checkpoint_alone,
             lambda i, f: ["-m", "retrieval", "embed", "--run", f / "run", "--data", i.dataset, "--splits", "val",
                           "--out", f / "store"],
             embeddings), "run"),
    "embeddings, then search": Target(
        Work("neighbors", copied("store", "store"),
             lambda i, f: ["-m", "retrieval", "neighbors", "--queries", f / "store", "--gallery", f / "store",
                           "--out", f / "neighbors.npz"], neighbors_found), "store"),
}


def damage(path: Path, rng: random.Random) -> str:
    """Flip a bit, cut the file, overwrite a stretch with zeros, or append bytes; returns what was done."""
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data)) if data else 0
    kind = rng.choice(["flip", "flip", "cut", "zeros", "more"] if data else ["more"])
    if kind == "flip":
        data[at] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[at:]
    elif kind == "zeros":
        data[at:at + 512] = bytes(len(data[at:at + 512]))
    else:
        data += rng.randbytes(100)
    path.write_bytes(data)
    return f"{path.name}: {kind} at byte {at:,}"


def spoil(trial: Trial, target: Target) -> None:
    """One random damage to one random file; then the reader."""
    paths = sorted(path for path in (trial.folder / target.damaged).rglob("*") if path.is_file())
    path = trial.rng.choice(paths)
    before = path.read_bytes()
    what = damage(path, trial.rng)
    changed = path.read_bytes() != before
    code = trial.ended(trial.start())
    if code == 0:
        if changed and 1 in target.found and path.name != "dataset.json":
            trial.faults.append(f"lost: verify did not find {what}")
        found, wanted = trial.work.result(trial.folder), trial.reference.result
        if path.suffix == ".jsonl":  # the log is not the run: its weights must be right, lines may be gone
            found, wanted = found[-1], wanted[-1]
        if found != wanted:
            trial.faults.append(f"misled: another result after {what}")
    elif code in target.found:
        trial.refused = True
    else:
        trial.faults.append(f"exit code {code} after {what}: {trial.noted().read_text()[-300:]!r}")
    trial.faults = [f"{fault} ({what})" if fault == "traceback" else fault for fault in trial.faults]


# A dataset in object storage, read through a server that errs.

TRANSIENT = ("cut", "short", "wrong", "drop", "stall", 500, 503)


@contextmanager
def bucket(inputs: Inputs) -> Iterator[faulty_s3.Front]:
    with faulty_s3.running() as (front, fs):
        fs.put(str(inputs.dataset), f"{faulty_s3.BUCKET}/data", recursive=True)
        yield front


def from_bucket() -> Work:
    url = f"s3://{faulty_s3.BUCKET}/data"
    return Work("train from a bucket", nothing,
                lambda i, f: [*TRAIN, "--data", url, "--out", f / "run", "--cache.folder", f / "cache"],
                lambda f: trained(f / "run"))


def erring_server(trial: Trial, front: faulty_s3.Front) -> None:
    """Up to six transient faults at random requests, each of which a repeated request mends."""
    faults: list[Any] = []
    for _ in range(trial.rng.randint(1, 6)):
        faults += [None] * trial.rng.randint(0, 4) + [trial.rng.choice(TRANSIENT)]
    front.mend()
    front.spoil("", *faults)
    slow = threading.Timer(trial.rng.uniform(1, 5), front.release.set)  # what stalled goes on then
    slow.start()
    code = trial.ended(trial.start())
    slow.cancel()
    front.mend()
    if code == 0 and trial.work.result(trial.folder) != trial.reference.result:
        trial.faults.append(f"misled: {faults} gave another result")
    elif code != 0:  # a wrong byte in dataset.json, which nothing can tell from a right one, may be refused
        trial.refused = one_sentence(trial)
        if code != 2 or not trial.refused:
            trial.faults.append(f"{faults} ended with {code}: {trial.noted().read_text()[-300:]!r}")
        trial.again()


# Wrong uploads to the web page, many at once.

UPLOADS, AT_ONCE = 500, 50


def wrong_uploads(inputs: Inputs, folder: Path, rng: random.Random) -> list[str]:
    """What was not as it should be while 500 wrong files came at once; the page must answer a photo after that."""
    noted = folder / "serve.stderr"
    photo = min(inputs.photos.glob("*.jpg")).read_bytes()
    with serving(inputs, noted) as (process, port):
        bodies = [wrong_file(photo, rng) for _ in range(UPLOADS)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            codes = list(pool.map(lambda body: upload(port, body), bodies))
        faults = [f"a wrong upload was answered with {code}" for code in codes if not 400 <= code < 500]
        if (code := upload(port, photo)) != 200:
            faults.append(f"lost: a photo was answered with {code} afterwards")
        process.send_signal(signal.SIGTERM)
        if process.wait(60) not in (0, 143, 128 + signal.SIGTERM):
            faults.append(f"SIGTERM ended it with {process.returncode}")
    if TRACEBACK in noted.read_text():
        faults.append("traceback")
    return faults


@contextmanager
def serving(inputs: Inputs, noted: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    words = ["-m", "retrieval", "serve", inputs.dataset, "--run", inputs.run, "--port", 0]
    with open(noted, "w") as f:
        process = subprocess.Popen([sys.executable, "-u", *map(str, words)], cwd=ROOT, text=True,
                                   stdout=subprocess.PIPE, stderr=f)
    try:
        assert process.stdout
        for line in process.stdout:
            if found := re.search(r"http://[^:]+:(\d+)", line):
                threading.Thread(target=process.stdout.read, daemon=True).start()
                yield process, int(found[1])
                return
        raise RuntimeError(f"the web page did not start: {noted.read_text()}")
    finally:
        process.kill()
        process.wait()


def upload(port: int, body: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", "/answer", body)
        return connection.getresponse().status
    except (ConnectionError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def wrong_file(photo: bytes, rng: random.Random) -> bytes:
    """Nothing, noise, a cut or spoiled photo, text, or a header that promises a huge picture."""
    cut = photo[:rng.randrange(len(photo) // 2)]
    return rng.choice([b"", rng.randbytes(rng.randrange(1, 5000)), cut, cut + rng.randbytes(500), b"<html>" * 50,
                       b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff\xff\xff\xff\xff\xff\xff\xff\x08\2\0\0\0" + bytes(4)])
