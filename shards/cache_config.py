"""How a dataset in object storage is read."""
import os
from dataclasses import dataclass
from pathlib import Path

MAX_WINDOW = 256  # each mapped shard takes a file descriptor, two windows are mapped at once, and 1024 is a usual limit


@dataclass(frozen=True)
class CacheConfig:
    """Where the shards of a dataset in object storage (--data s3://…) stand on local disk; for a folder, nothing."""

    folder: str | None = None
    """Folder for shards and indexes, shared by all processes and runs of a machine; null: ~/.cache/arcshard."""
    size_gb: float = 100.0
    """Most that the folder holds, 10^9 bytes; what was used longest ago makes way."""
    window: int = 16
    """Shards whose photos are shuffled with each other; these and as many to come must fit into the cache."""

    def __post_init__(self) -> None:
        if self.size_gb <= 0:
            raise ValueError(f"cache.size_gb must be positive; got {self.size_gb}")
        if not 1 <= self.window <= MAX_WINDOW:
            raise ValueError(f"cache.window must lie in [1, {MAX_WINDOW}]; got {self.window}")

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.folder or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "arcshard")).expanduser()

    @property
    def size(self) -> int:
        """Most that it holds, bytes."""
        return int(self.size_gb * 1e9)
