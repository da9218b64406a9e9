"""Files in a folder and in all folders below it."""
import os
from collections.abc import Iterator
from pathlib import Path

from arcshard.console import UserError


def files_below(tree: str | Path) -> Iterator[str]:
    """Paths relative to the tree, with /. Links are followed; names that begin with a dot are left out.

    Raises UserError for a link that leads nowhere, or to a folder that the tree has already: its files would appear
    twice. Raises OSError for a folder that cannot be read.
    """
    seen: dict[tuple[int, int], str] = {}
    root = os.path.join(tree, "")  # with / at the end it is no link, even if the tree is one
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        status = os.stat(folder)
        if (first := seen.setdefault((status.st_dev, status.st_ino), folder)) != folder:
            link = next(filter(os.path.islink, [folder, first, *map(str, Path(folder).parents)]), folder)
            other = folder if link == first else first
            raise UserError(f"the link {link} leads to {other}, which is in {tree} already: remove it")
        with os.scandir(folder) as entries:
            visible = sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
        for entry in visible:
            if entry.is_dir():
                waiting.append(entry.path)
            elif entry.is_file():
                yield entry.path[len(root):]
            elif entry.is_symlink() and not os.path.exists(entry):
                raise UserError(f"the link {entry.path} leads to {os.readlink(entry)}, which is not there: remove it")
