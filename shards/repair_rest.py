"""What repair must leave as it is: files that no tar can give, and tables of a split that has a damaged tar."""
import os
from collections.abc import Iterator
from pathlib import Path

from shards.csv_table import read_table
from shards.file_entry import Entry, entry_faults, file_entry
from shards.format import CLASSES, CLASSES_COLUMNS, MANIFEST, REPAIRING, truths_name
from shards.repair_split import RebuiltSplit
from shards.tables import Tables, labels_of
from shards.verify_tables import class_faults, key_faults, label_faults, truth_faults

ONLY_COPY = "nothing else holds what it said: bring it back from a copy"


def rest_faults(path: Path, names: set[str], splits: list[RebuiltSplit], tables: list[Tables],
                packed: dict[str, Entry] | None) -> list[str]:
    """A sentence for each fault that repair cannot mend, but for the damaged tars themselves.

    names: files that belong to the dataset; tables: of the whole splits, as rebuilt; packed: dataset.json's entries,
    None if it is lost.
    """
    faults = [f"{name}: an extra file: remove it"
              for name in sorted({*os.listdir(path)} - names - {MANIFEST, REPAIRING})]
    for split in splits:
        faults += _left_over(path, split, names, packed or {})
    faults += _only_copies(path, names, packed or {})
    if packed is None:
        faults += _unvouched(path, tables, whole=len(tables) == len(splits))
    return faults + [*key_faults(tables)]


def count_classes(path: Path) -> int | None:
    """Number of classes in a classes.csv; None if it cannot be read."""
    try:
        return len(read_table(path, CLASSES_COLUMNS))
    except (ValueError, OSError):
        return None


def _left_over(path: Path, split: RebuiltSplit, names: set[str], packed: dict[str, Entry]) -> Iterator[str]:
    """Tables and .idx that would have to be rebuilt from a damaged tar."""
    own = {name for name in names if name.startswith((f"{split.split}-", f"{split.split}.")) and is_derived(name)}
    for name in sorted(own - split.entries.keys()):
        if not (path / name).is_file() or name not in packed or file_entry(path / name) != packed[name]:
            yield f"{name}: cannot be rebuilt, since a tar that it describes is damaged"


def _only_copies(path: Path, names: set[str], packed: dict[str, Entry]) -> Iterator[str]:
    """Files that no tar can give, where they are not as they were packed."""
    for name in sorted(name for name in names if not is_derived(name) and not name.endswith(".tar")):
        if not (path / name).is_file():
            yield f"{name}: missing, and {ONLY_COPY}"
        elif name in packed:
            for fault in entry_faults(name, file_entry(path / name), packed[name]):
                yield f"{fault}, and {ONLY_COPY}"


def _unvouched(path: Path, tables: list[Tables], whole: bool) -> Iterator[str]:
    """What contradicts itself, where dataset.json is lost and cannot vouch for it."""
    num_classes = count_classes(path / CLASSES)
    yield from class_faults(path / CLASSES, labels_of(tables, "train") if whole else None, num_classes or 0)
    if num_classes is None:
        return
    for table in tables:
        yield from label_faults(table, num_classes)
        yield from truth_faults(path / truths_name(table.split), table, num_classes)


def is_derived(name: str) -> bool:
    """Whether a file can be made from the tars."""
    return name.endswith((".idx", ".npy"))
