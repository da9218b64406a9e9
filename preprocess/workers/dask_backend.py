"""joblib's dask backend (joblib 1.6), with two habits of it mended."""
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from joblib._dask import DaskDistributedBackend


class DaskBackend(DaskDistributedBackend):
    """For joblib.parallel_config(DaskBackend(client=client))."""

    def effective_n_jobs(self, n_jobs: int) -> int:
        """At least 2: at 1 (a cluster whose second worker is late) joblib would do the tasks in this process."""
        return max(2, super().effective_n_jobs(n_jobs))

    def submit(self, func: Any, callback: Callable[[Any], Any] | None = None) -> "Future[Any]":
        """As it is, but a task that dask gave up is heard of too; without that joblib waits for ever."""
        future = super().submit(func, callback)
        future.add_done_callback(lambda done: callback(done) if callback and done.exception() else None)
        return future

    def retrieve_result_callback(self, out: Any) -> Any:
        """The task's result; raises what submit() heard of."""
        return out.result() if isinstance(out, Future) else super().retrieve_result_callback(out)
