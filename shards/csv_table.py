"""Read and write the small CSV files of a dataset, which hold exactly the columns that format.py names."""
import csv
import io
from collections.abc import Iterable
from pathlib import Path

from arcshard.files import write_text


def read_table(path: Path, columns: list[str]) -> list[list[str]]:
    """Rows under the header, each as long as `columns`. Raises ValueError for any other file."""
    try:
        text = path.read_bytes().decode()
        header, *rows = [*csv.reader(io.StringIO(text, newline=""))] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot be read ({error})") from None
    if header != columns or any(len(row) != len(columns) for row in rows):
        raise ValueError(f"its columns must be {', '.join(columns)}")
    return rows


def write_table(path: Path, columns: list[str], rows: Iterable[tuple]) -> None:
    """Write a header and rows; the file appears whole."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)
    write_text(path, text.getvalue())
