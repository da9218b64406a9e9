"""A full disk, in one sentence."""
import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from arcshard.console import UserError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def full_disk_is_a_sentence(path: Path | str) -> Iterator[None]:
    """Raise UserError where the disk, a quota or a limit leaves no room for what the block writes to `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise UserError(f"the disk must have room for {path}, but writing ended with: {error.strerror}; make space and "
                        "run the same command again") from None
