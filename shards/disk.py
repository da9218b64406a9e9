"""A full disk, in one sentence."""
import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from arcshard.console import UserError


@contextmanager
def full_disk_is_a_sentence(path: Path) -> Iterator[None]:
    """Raise UserError where the disk that holds `path` has no space left for what the block writes."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"the disk that holds {path} is full: make space and run the same command again") from None
