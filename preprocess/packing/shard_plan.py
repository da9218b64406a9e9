"""Cut a shuffled sample table into shards."""
from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from shards.format import shard_name

# A part: the folder in which a finished task keeps its shard until the dataset is published.
#
# .packing/train-000012/ holds shard.tar, shard.idx, rows.npy (index rows), labels.npy and part.json: the number of
# samples, the rejected photos with their reasons, size and sha256 of tar and idx.

TAR, IDX, ROWS, LABELS, PART = "shard.tar", "shard.idx", "rows.npy", "labels.npy", "part.json"
SCRATCH = "scratch-"  # prefix of folders that a killed task leaves behind


class Cut(NamedTuple):
    """Rows start … stop - 1 of the table become shard `number` of `split`."""

    split: str
    number: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """File name of the shard, without extension."""
        return shard_name(self.split, self.number)


def cuts(splits: pd.Series, shard_size: int, first_numbers: dict[str, int]) -> list[Cut]:
    """Cuts of a table whose rows are sorted by split, at most `shard_size` rows each.

    splits: the table's column. first_numbers: number of a split's first shard, 0 if absent.
    """
    return list(_cuts(splits, shard_size, first_numbers))


def _cuts(splits: pd.Series, shard_size: int, first_numbers: dict[str, int]) -> Iterator[Cut]:
    begin = 0
    for split, rows in splits.value_counts().sort_index().items():
        number = first_numbers.get(str(split), 0)
        for start in range(begin, begin + rows, shard_size):
            yield Cut(str(split), number, start, min(start + shard_size, begin + rows))
            number += 1
        begin += rows
