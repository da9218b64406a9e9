"""Packing on clusters: a real dask scheduler with two workers, a real ray, and workers that die."""
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from distributed import Client

import preprocess.packing.pack
from arcshard.console import UserError
from arcshard.files import sha256
from preprocess.engine import Engine, run_tasks
from preprocess.packing.options import PackOptions
from preprocess.packing.pack import pack
from tests.commands import ROOT
from tests.deadly_tasks import attempt_or_die, die, die_once

BIN = Path(sys.executable).parent
OPTIONS = PackOptions(shard_size=10)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in folder.iterdir()}


@pytest.fixture(scope="module")
def packed(photos, tmp_path_factory) -> dict[str, str]:
    """Digests of what one process packs."""
    out = tmp_path_factory.mktemp("packed") / "out"
    pack(photos[1], [photos[0]], out, OPTIONS, Engine())
    return digests(out)


@pytest.fixture(scope="module")
def dask_cluster(tmp_path_factory):
    """Address of a scheduler, and its two workers."""
    log = tmp_path_factory.mktemp("dask") / "scheduler.log"
    shared = {"cwd": log.parent, "start_new_session": True,
              "env": os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}}  # for die_once
    with open(log, "w") as f:
        command = [BIN / "dask", "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        scheduler = subprocess.Popen(command, stdout=f, stderr=subprocess.STDOUT, **shared)
    while not (found := re.search(r"tcp://127\.0\.0\.1:\d+", log.read_text())):
        assert scheduler.poll() is None, log.read_text()
        time.sleep(0.05)
    command = [BIN / "dask", "worker", found[0], "--nthreads", "1", "--no-dashboard"]
    workers = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **shared)
               for _ in range(2)]
    with Client(found[0]) as client:
        client.wait_for_workers(2, timeout=60)
    yield found[0]
    for process in [*workers, scheduler]:
        os.killpg(process.pid, signal.SIGKILL)  # a worker's nanny outlives SIGTERM while it starts a new worker
        process.wait()


def test_dask_gives_the_same_bytes(photos, packed, dask_cluster, tmp_path):
    pack(photos[1], [photos[0]], tmp_path / "out", OPTIONS, Engine(backend="dask", scheduler=dask_cluster))
    assert digests(tmp_path / "out") == packed


def test_ray_gives_the_same_bytes(photos, packed, tmp_path, process):
    photos[1].to_csv(tmp_path / "samples.csv", index=False)
    done = process("preprocess/make_shards.py", "--samples", tmp_path / "samples.csv", "--images", photos[0],
                   "--out", tmp_path / "out", "--shard-size", 10, "--backend", "ray", "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "out") == packed


@pytest.mark.parametrize("backend", ["loky", "dask"])
def test_a_worker_that_dies_stops_nothing(backend, request, tmp_path):
    tasks = [tmp_path / f"task{number}" for number in range(6)]
    for task in tasks[:2] + tasks[3:]:
        task.touch()
    scheduler = request.getfixturevalue("dask_cluster") if backend == "dask" else None
    done: set[str] = set()
    for name in run_tasks(Engine(2, backend, scheduler), die_once,
                          lambda: (task for task in tasks if task.name not in done)):
        done.add(name)
    assert done == {task.name for task in tasks}


def test_workers_that_always_die_end_in_a_sentence():
    with pytest.raises(UserError) as error:
        list(run_tasks(Engine(2), die, lambda: iter(range(4))))
    assert re.fullmatch(r"the workers of --backend loky died 5 times in a row \(TerminatedWorkerError: .*\): check "
                        r"memory and the cluster, then run the same command again", str(error.value))


def test_a_photo_that_kills_its_worker_is_given_up_and_the_rest_is_packed(photos, tmp_path, monkeypatch):
    """One shard's photos kill; the others are kept, and the sentence names it."""
    monkeypatch.setattr(preprocess.packing.pack, "_attempt", attempt_or_die)
    with pytest.raises(UserError) as error:
        pack(photos[1], [photos[0]], tmp_path / "out", OPTIONS, Engine(2))
    assert str(error.value) == ("workers died 3 times on train-000003, out of memory or at a photo: give --workers 1, "
                                "or more memory, and run it again")
    kept = {path.name for path in (tmp_path / "out" / ".packing").glob("t*-*")}
    assert "train-000003" not in kept and {"train-000000", "train-000001", "train-000002"} <= kept
    monkeypatch.undo()
    assert pack(photos[1], [photos[0]], tmp_path / "out", OPTIONS, Engine(2))


@pytest.mark.parametrize("options, sentence", [
    ({"workers": 0}, "--workers is 0: give at least 1"),
    ({"backend": "spark"}, "--backend is spark: give one of loky, dask, ray"),
    ({"scheduler": "tcp://a:1"}, "--scheduler does not go with --backend loky: choose --backend dask or ray"),
])
def test_engines_that_make_no_sense_are_refused(options, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        Engine(**options)


def test_a_scheduler_that_does_not_answer_is_a_sentence(photos, tmp_path, process):
    photos[1].to_csv(tmp_path / "samples.csv", index=False)
    done = process("preprocess/make_shards.py", "--samples", tmp_path / "samples.csv", "--images", photos[0], "--out",
                   tmp_path / "out", "--backend", "dask", "--scheduler", "tcp://127.0.0.1:9",
                   env=os.environ | {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "2s"})
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("make_shards.py: no dask scheduler answers at tcp://127.0.0.1:9 (")


def test_a_package_that_is_missing_is_named(monkeypatch, photos, tmp_path):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"the package distributed, which --backend dask needs, is not installed: "
                                        r"pip install 'arcshard\[dask\]'"):
        pack(pd.DataFrame(photos[1]), [photos[0]], tmp_path / "out", OPTIONS, Engine(backend="dask"))


def test_workers_end_with_a_command_that_is_killed(tmp_path):
    """joblib's own would wait for their next task forever, with 150 MB each."""
    code = ("import time, sys; from pathlib import Path; from preprocess.engine import Engine, run_tasks\n"
            "def work(task): Path(sys.argv[1], task).touch(); time.sleep(300)\n"
            "list(run_tasks(Engine(2), work, lambda: ['a', 'b']))")
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=ROOT, start_new_session=True)
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    process.kill()
    process.wait()
    wait_until(lambda: not alive(process.pid))


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it took more than a minute"
        time.sleep(0.05)


def alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
