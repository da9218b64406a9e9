"""Small CSV files of known columns, read and written whole.

Sample tables, which have millions of rows, are read by pyarrow instead (preprocess/samples/text_table.py).
"""
import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from arcshard.files import write_text


def read_table(path: Path, columns: list[str]) -> list[list[str]]:
    """parse_table of a file."""
    return parse_table(path.read_bytes(), columns)


def parse_table(data: bytes, columns: list[str]) -> list[list[str]]:
    """Rows under a header of exactly these columns, each as long as the header; empty lines are skipped.

    data: UTF-8, a byte order mark is skipped. Raises ValueError for anything else.
    """
    try:
        table = [row for row in csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot be read ({error})") from None
    header, *rows = table or [[]]
    if header != columns:
        raise ValueError(f"has the columns {','.join(header)[:100]!r}, not {','.join(columns)}")
    if ragged := next((row for row in rows if len(row) != len(columns)), None):
        raise ValueError(f"a row has {len(ragged)} fields, not {len(columns)}")
    return rows


def write_table(path: str | Path, columns: list[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a header and rows; the file appears whole."""
    write_text(path, "".join(map(_line, [columns, *rows])))


def _line(row: Iterable[Any]) -> str:
    """Ends with a line feed; csv.writer would leave a carriage return unquoted if it wrote that end itself."""
    text = io.StringIO()
    csv.writer(text).writerow(row)
    return text.getvalue().removesuffix("\r\n") + "\n"
