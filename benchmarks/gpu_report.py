"""What benchmarks/gpu.py found, as a table for a terminal and one for docs/gpu.md."""
from typing import Any, NamedTuple

from machine import listed


class Row(NamedTuple):
    """One finding."""

    part: str
    what: str
    found: str
    expected: str
    """The mark, of one H100 at 224 px; empty where there is none."""
    met: bool | None
    """None: nothing to meet, or a dry run."""


def mark(row: Row) -> str:
    if row.met is None:
        return "not judged" if row.expected else ""
    return "met" if row.met else "MISSED"


def table(rows: list[Row]) -> str:
    """Aligned columns."""
    cells = [("part", "what", "found", "expected", ""), *((*row[:4], mark(row)) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(5)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells)


def markdown(about: dict[str, Any], facts: dict[str, Any], rows: list[Row]) -> str:
    """The same for a page, under the machine and the sizes that it holds for."""
    lines = [f"{listed(about)}.", "", f"{listed(facts)}.", "", "| part | what | found | expected | |",
             "|---|---|---|---|---|"]
    lines += [f"| {' | '.join((*row[:4], mark(row)))} |" for row in rows]
    return "\n".join(lines) + "\n"
