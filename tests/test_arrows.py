"""The rooms know only whom they may know (design: the arrows point one way)."""
import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {"arcshard", "shards", "loader", "model", "retrieval", "retrieval.run", "training", "preprocess", "benchmarks"}
PAGES = {"train", "evaluate", "export", "predict", "report", "tune"}
MAY_IMPORT = {
    "arcshard": set(),
    "shards": {"arcshard"},
    "loader": {"arcshard", "shards"},
    "model": {"arcshard"},
    "retrieval": {"arcshard"},
    "retrieval.run": {"arcshard", "shards", "loader", "model", "retrieval", "preprocess"},
    "preprocess": {"arcshard", "shards"},
    "training": {"arcshard", "shards", "loader", "model", "preprocess"},
    "benchmarks": ROOMS,
}
COMMANDS = {"loader/__main__.py": {"model"},  # shows what the two rooms make of a photo together
            "retrieval/__main__.py": {"retrieval.run"}}  # the door to commands about a run's answers
FORBIDDEN = {"shards": {"torch", "nvidia", "timm"}, "retrieval": {"nvidia", "timm"}, "preprocess": {"torch", "nvidia"}}


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_rooms_import_only_what_they_may(room):
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        found = imported(path)
        allowed = MAY_IMPORT[room] | COMMANDS.get(str(path.relative_to(ROOT)), set()) | {room}
        assert found & (ROOMS | PAGES) <= allowed, path
        assert not found & FORBIDDEN.get(room, set()), path
