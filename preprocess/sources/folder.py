"""Photos in a folder laid out as Google Landmarks on Kaggle, in a flat one, or in any that paths describe."""
import errno
import os
from typing import NamedTuple

from arcshard.console import UserError
from preprocess.images.decode import Rejected
from preprocess.sources.entry import MAX_PHOTO, TOO_LARGE, base_name
from preprocess.sources.urls import is_local, read_file

FOLDERS = ("{0}/{1}/{2}/", "train/{0}/{1}/{2}/", "test/{0}/{1}/{2}/", "index/{0}/{1}/{2}/", "")

# Faults of one file. Others (too many open files, a lost network drive) are no reason to leave a photo out.
OF_THE_FILE = {errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.EIO}


class Folder(NamedTuple):
    """A folder: an absolute path, or a URL."""

    url: str

    def read(self, key: str, path: str | None) -> bytes | None:
        """The file at `path`, or the first <key>.jpg of a/b/c/, train/a/b/c/, test/a/b/c/, index/a/b/c/ and the folder.

        a, b and c are the first three characters of the key; None: there is no such file. Raises Rejected for a
        file that cannot be read, UserError if the folder itself is gone. Object storage is asked for each name.
        """
        read = _read_local if is_local(self.url) else read_file
        for name in _names(key) if path is None else [path]:
            data = read(f"{self.url}/{name}")
            if data is not None:
                return data
        if is_local(self.url) and not os.path.isdir(self.url):
            raise UserError(f"the photos' folder must stay until all are packed, but {self.url} is gone: bring it back "
                            "and run the same command again")
        return None


def _names(key: str) -> list[str]:
    folders = FOLDERS if len(key) >= 3 else FOLDERS[-1:]
    return [folder.format(*key) + base_name(key) for folder in folders]


def _read_local(path: str) -> bytes | None:
    try:
        with open(path, "rb", buffering=0) as f:
            if os.fstat(f.fileno()).st_size > MAX_PHOTO:
                raise Rejected(TOO_LARGE)
            return f.readall()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeEncodeError:  # no file of this system can have such a name
        return None
    except OSError as error:
        if error.errno not in OF_THE_FILE:
            raise
        raise Rejected(f"unreadable: {error.strerror}") from None
