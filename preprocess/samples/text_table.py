"""Read columns of a CSV or Parquet file as text, write such a file. The suffix .parquet tells which it is."""
import csv
from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from arcshard.console import UserError
from arcshard.files import whole_file

BLOCK = 4 << 20  # bytes of a CSV read at a time; pyarrow refuses rows that are longer than two of them
ROWS_A_BYTE = 30  # of a Parquet file; ids that count up, in delta encoding and zstd, gave 5.5
TEXT, CODED_TEXT = pa.large_string(), pa.dictionary(pa.int32(), pa.string())  # pandas takes them as they are


def column_names(path: str | Path) -> list[str]:
    """Column names of a table, stripped. Raises UserError if the file is missing, no table, or names a column twice."""
    names = [name.strip() for name in _header(path)]
    double = [name for number, name in enumerate(names) if name in names[:number]]
    if double:
        raise UserError(f"{path} has several columns {double[0]!r}: rename all but one")
    return names


def _header(path: str | Path) -> list[str]:
    try:
        return parquet.read_schema(path).names if _is_parquet(path) else _csv_header(path)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UserError(f"there is no file {path}: check the path") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise _no_table(path, error) from None


def read_columns(path: str | Path, columns: Sequence[str], plain: Collection[str] = ("id",)) -> pd.DataFrame:
    """Those columns, every field as text (the id 1e10 is no number), empty fields as "".

    The columns in `plain` become strings (24 bytes per id of 16 characters), the others, whose values repeat,
    categories (1 to 4 bytes). Raises UserError as column_names does, for a missing column, and without rows.
    """
    there = column_names(path)
    missing = [column for column in columns if column not in there]
    other = next((sign for sign in ";\t|" if missing and len(there) == 1 and sign in there[0]), None)
    if other:
        raise UserError(f"{path} separates its columns by {other!r}: save it with commas")
    if missing and not there:
        raise UserError(f"{path} is empty, not a CSV with the columns {', '.join(columns)}: check that it is the right "
                        "file")
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)} (it has {_one_line(', '.join(there))}): check "
                        "the path")
    raw_names = dict(zip(there, _header(path)))
    types = {raw_names[column]: TEXT if column in plain else CODED_TEXT for column in columns}
    try:
        table = _read_parquet(path, types) if _is_parquet(path) else _read_csv(path, types)
    except (pa.ArrowException, OSError) as error:
        raise _no_table(path, error) from None
    if not len(table):
        raise UserError(f"{path} has a header but no rows: add a row for each photo")
    columns_read = table.rename_columns(list(columns)).to_pandas()
    del table
    pa.default_memory_pool().release_unused()  # 180 MB at 4.1 M rows, which pyarrow would keep
    return columns_read


def stripped(column: pd.Series) -> pd.Series:
    """A category column without white space around its texts."""
    return column.map(str.strip).astype("category")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV or Parquet file that appears whole; missing values become empty fields."""
    with whole_file(path) as f:
        if _is_parquet(path):
            table.to_parquet(f, index=False)
        else:
            table.to_csv(f, mode="wb", index=False, lineterminator="\n")


def _is_parquet(path: str | Path) -> bool:
    return Path(path).suffix.lower() == ".parquet"


def _no_table(path: str | Path, error: Exception) -> Exception:
    """What to raise: a sentence, or the error itself if it is the system's, which has a number."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    what = "Parquet file" if _is_parquet(path) else "CSV file in UTF-8"
    return UserError(f"{path} is not a {what} ({_one_line(str(error))}): save it as one")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _csv_header(path: str | Path) -> list[str]:
    """The first row that is not empty, or []."""
    with open(path, encoding="utf-8-sig", newline="") as f:
        return next(filter(None, csv.reader(f)), [])


def _read_csv(path: str | Path, types: dict[str, pa.DataType]) -> pa.Table:
    return arrow_csv.read_csv(
        path, read_options=arrow_csv.ReadOptions(block_size=BLOCK),
        parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(include_columns=list(types), column_types=types))


def _read_parquet(path: str | Path, types: dict[str, pa.DataType]) -> pa.Table:
    rows, size = parquet.read_metadata(path).num_rows, Path(path).stat().st_size
    if rows > ROWS_A_BYTE * size:
        raise UserError(f"{path} is {size:,} bytes and unpacks into {rows:,} rows, more than any table with an id for "
                        "each photo: check the file")
    table = parquet.read_table(path, columns=list(types))
    table.validate(full=True)  # that texts are UTF-8
    return pa.table({name: _texts(path, name, table[name], type) for name, type in types.items()})


def _texts(path: str | Path, name: str, column: pa.ChunkedArray, type: pa.DataType) -> pa.ChunkedArray:
    values = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(values) or pa.types.is_large_string(values) or pa.types.is_integer(values)
            or pa.types.is_null(values)):
        raise UserError(f"the column {name} of {path} has the type {values}: convert it to text or whole numbers")
    texts = pc.fill_null(column.cast(TEXT if type == TEXT else type.value_type), "")
    return texts if type == TEXT else texts.dictionary_encode()
