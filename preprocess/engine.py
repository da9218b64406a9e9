"""Run tasks on one machine or many, through joblib: loky (processes on this machine), dask or ray (clusters).

A worker that dies, killed for lack of memory or with its machine, does not stop the others: its tasks are run again.
"""
import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from joblib import Parallel, delayed, parallel_config

from arcshard.console import UserError
from arcshard.workers import end_with_parent

Backend = Literal["loky", "dask", "ray"]
T = TypeVar("T")

WAVE = 16  # tasks per worker, for a backend that only returns whole lists (ray)
MAX_DEATHS = 5  # of workers in a row, without a task finishing in between


@dataclass(frozen=True)
class Engine:
    """Where tasks run. Raises UserError for values out of range or that exclude each other."""

    workers: int = 1
    backend: Backend = "loky"
    scheduler: str | None = None
    """Address of a running cluster: tcp://… for dask, ray://… or host:port for ray. None: start one on this machine."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UserError(f"--workers is {self.workers}: give at least 1")
        if self.backend not in get_args(Backend):
            raise UserError(f"--backend is {self.backend}: give one of {', '.join(get_args(Backend))}")
        if self.scheduler and self.backend == "loky":
            raise UserError("--scheduler does not go with --backend loky: choose --backend dask or ray, or "
                            "leave --scheduler out")


def run_tasks(engine: Engine, work: Callable[[Any], T], unfinished: Callable[[], Iterable[Any]]) -> Iterator[T]:
    """Yield what `work` returns for each task of unfinished(), in the order in which the tasks finish.

    After the death of a worker unfinished() is called again. If `work` raises, no more tasks begin, and the first
    exception is raised once the running ones are finished. Raises UserError when the backend cannot be reached or keeps
    failing.
    """
    failures: list[Exception] = []
    with _backend(engine):
        deaths = 0
        while True:
            tasks = takewhile(lambda _: not failures, unfinished())
            try:
                for result in _results(engine, (delayed(_attempt)(work, task) for task in tasks)):
                    deaths = 0
                    if isinstance(result, _Failure):
                        failures.append(result.error)
                    else:
                        yield result
                break
            except UserError:
                raise
            except Exception as error:  # the backend's; each has its own types
                deaths += 1
                if deaths == MAX_DEATHS:
                    first_line = str(error).partition("\n")[0]
                    raise UserError(f"the workers of --backend {engine.backend} died {deaths} times in a row "
                                    f"({type(error).__name__}: {first_line}): check memory and the cluster, then run "
                                    "the same command again") from error
    if failures:
        raise failures[0]


class _Failure(NamedTuple):
    error: Exception


def _attempt(work: Callable[[Any], T], task: Any) -> T | _Failure:
    """An exception is returned, since some backends kill their workers when a task raises."""
    try:
        return work(task)
    except Exception as error:
        return _Failure(error)


def _results(engine: Engine, jobs: Iterator[Any]) -> Iterator[Any]:
    if engine.backend != "ray":
        yield from Parallel(return_as="generator_unordered")(jobs)
        return
    with Parallel() as parallel:  # ray's backend of joblib returns lists only
        while wave := list(islice(jobs, WAVE * parallel._effective_n_jobs())):
            yield from parallel(wave)


def _backend(engine: Engine) -> AbstractContextManager[Any]:
    return {"loky": _loky, "dask": _dask, "ray": _ray}[engine.backend](engine)


@contextmanager
def _loky(engine: Engine) -> Iterator[None]:
    with parallel_config("loky", n_jobs=engine.workers, **end_with_parent()):
        yield


@contextmanager
def _dask(engine: Engine) -> Iterator[None]:
    with _needs_extra("dask"):
        from distributed import Client, LocalCluster
    try:
        client = Client(engine.scheduler or LocalCluster(n_workers=engine.workers, threads_per_worker=1,
                                                         dashboard_address=None))
    except (OSError, ValueError) as error:
        raise UserError(f"no dask scheduler answers at {engine.scheduler} ({error}): start one, or leave --scheduler "
                        "out") from None
    with client, parallel_config(_dask_backend(client)):
        yield


def _dask_backend(client: Any) -> Any:
    """joblib's dask backend (joblib 1.6), with two habits of it mended."""
    from joblib._dask import DaskDistributedBackend  # here, since it imports dask, which workers of loky do not need

    class DaskBackend(DaskDistributedBackend):
        def effective_n_jobs(self, n_jobs: int) -> int:
            """At least 2: with 1 (a cluster whose second worker is late) joblib would run the tasks in this process."""
            return max(2, super().effective_n_jobs(n_jobs))

        def submit(self, func: Any, callback: Callable[[Any], Any] | None = None) -> "Future[Any]":
            """Also report a task that dask gave up; joblib would wait for it forever."""
            future = super().submit(func, callback)
            future.add_done_callback(lambda done: callback(done) if callback and done.exception() else None)
            return future

        def retrieve_result_callback(self, out: Any) -> Any:
            """The task's result; raises what submit() reported."""
            return out.result() if isinstance(out, Future) else super().retrieve_result_callback(out)

    return DaskBackend(client=client)


@contextmanager
def _ray(engine: Engine) -> Iterator[None]:
    with _needs_extra("ray"):
        import ray
        from ray.util.joblib import register_ray
    try:
        here: dict[str, Any] = {} if engine.scheduler else {"num_cpus": engine.workers, "include_dashboard": False}
        ray.init(address=engine.scheduler, log_to_driver=False, logging_level=logging.ERROR, **here)
    except (ConnectionError, ValueError) as error:
        raise UserError(f"no ray cluster answers at {engine.scheduler} ({error}): start one, or leave --scheduler "
                        "out") from None
    try:
        register_ray()
        with parallel_config("ray", n_jobs=-1):
            yield
    finally:
        ray.shutdown()


@contextmanager
def _needs_extra(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise UserError(f"the package {error.name}, which --backend {name} needs, is not installed: "
                        f"pip install 'arcshard[{name}]'") from None
