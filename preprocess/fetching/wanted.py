"""What fetch.py is asked for, and the name that it gets here."""
import re
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from arcshard.console import UserError


class Wanted(NamedTuple):
    """A competition ("landmark-recognition-2020") or a dataset ("owner/name"), whole (one zip) or one file of it."""

    source: str
    file: str | None = None

    @property
    def is_dataset(self) -> bool:
        return "/" in self.source

    @property
    def page(self) -> str:
        """Its page at Kaggle, where its name can be checked and its rules accepted."""
        return f"https://www.kaggle.com/{'datasets' if self.is_dataset else 'competitions'}/{self.source}"

    @property
    def name(self) -> str:
        """The name that the fetched file is to have, unless Kaggle serves it zipped."""
        return PurePosixPath(self.file).name if self.file else f"{self.source.rpartition('/')[2]}.zip"

    def name_at(self, url: str) -> str:
        """`name`, with .zip where `url` says that the one file comes zipped; nothing else of `url` is trusted."""
        zipped = unquote(urlsplit(url).path).endswith(".zip")
        return f"{self.name}.zip" if zipped and not self.name.endswith(".zip") else self.name


def wanted_from(competition: str, dataset: str | None, file: str | None) -> Wanted:
    """The dataset, or else the competition. Raises UserError where a name cannot be one."""
    for option, name, pattern in (("--competition", competition, r"[\w-]+"), ("--dataset", dataset, r"[\w-]+/[\w-]+")):
        if name is not None and not re.fullmatch(pattern, name):
            shape = "NAME" if option == "--competition" else "OWNER/NAME"
            raise UserError(f"{option} must be {shape} as in the address of its page at Kaggle, not {name!r}: copy it")
    if file is not None and PurePosixPath(file).name in ("", ".."):
        raise UserError(f"--file must name one file as Kaggle's page lists it, not {file!r}: leave it out to fetch all")
    return Wanted(dataset or competition, file)
