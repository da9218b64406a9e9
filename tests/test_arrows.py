"""Who may import whom: the arrows between the rooms point one way, followed to their end.

An import inside a function counts as one at the top, unless its line says `# lazy: why`: then it counts for the rooms
but not for what starting a process loads.
"""
import ast
import graphlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {  # room -> rooms that it may import; a module belongs to the innermost room that holds it
    "arcshard": set(),
    "shards": {"arcshard"},
    "loader": {"arcshard", "shards"},
    "model": {"arcshard"},
    "retrieval": {"arcshard"},
    "training": {"arcshard", "shards", "loader", "model", "retrieval"},
    "preprocess": {"arcshard", "shards"},
    "pages": {"arcshard", "shards", "retrieval", "preprocess"},
    "retrieval.run": {"arcshard", "shards", "loader", "model", "retrieval", "preprocess", "pages"},
    "benchmarks": {"arcshard", "shards", "loader", "model", "retrieval", "training", "preprocess", "pages",
                   "retrieval.run"},
}
PAGES = {"train", "evaluate", "export", "predict", "report", "tune"}  # they may import every room but benchmarks
EXCEPTIONS = {  # module -> rooms that it imports besides, each with its reason
    "loader.__main__": {"model"},  # a command: shows what the two rooms make of a photo together
    "retrieval.__main__": {"retrieval.run"},  # a command: the door to those about a run's answers
    "preprocess.duplicates": {"pages"},  # a command: draws the page of its report
}
NEVER_LOADS = {  # room -> packages that none of its modules may load, itself or through others
    "shards": {"torch", "nvidia", "timm"},
    "preprocess": {"torch", "nvidia", "timm"},
    "retrieval": {"nvidia", "timm"},
    "loader": {"timm"},
    "model": {"nvidia"},
}


class Imports(NamedTuple):
    """What a module imports, as full names: everything, and what is loaded along with it."""

    all: set[str]
    loaded: set[str]


def modules() -> dict[str, Path]:
    """The project's modules by their dotted names."""
    files = [*(ROOT / f"{page}.py" for page in PAGES),
             *(path for room in ROOMS if "." not in room for path in (ROOT / room).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


MODULES = modules()


def imports_of(name: str) -> Imports:
    """The modules and packages that a module imports, wherever in its file; importing a.b loads a too."""
    text = MODULES[name].read_text()
    lines, everything, loaded = text.splitlines(), set(), set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{name}: imports are absolute"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            found = {node.module} | (submodules & MODULES.keys())
        else:
            continue
        everything |= found
        if "# lazy: " not in lines[node.lineno - 1]:
            loaded |= {".".join(parts[:end]) for each in found if (parts := each.split("."))
                       for end in range(1, len(parts) + 1)}
    if "." in name:
        loaded.add(name.rpartition(".")[0])
    return Imports(everything, loaded)


IMPORTS = {name: imports_of(name) for name in MODULES}


def room_of(name: str) -> str:
    """The innermost room of a module; a page is its own."""
    inside = [room for room in ROOMS if name == room or name.startswith(f"{room}.")]
    return max(inside, key=len, default=name)


def way_to(name: str, packages: set[str]) -> list[str]:
    """The shortest chain of imports from a module to one of the packages; empty: there is none."""
    ways, seen = [[name]], {name}
    for way in ways:  # grows
        for found in sorted(IMPORTS[way[-1]].loaded - seen):
            if found.partition(".")[0] in packages:
                return [*way, found]
            if found in MODULES:
                seen.add(found)
                ways.append([*way, found])
    return []


def test_the_rules_themselves_have_no_circle():
    list(graphlib.TopologicalSorter(ROOMS).static_order())


@pytest.mark.parametrize("room", [*ROOMS, *sorted(PAGES)])
def test_rooms_import_only_what_they_may(room):
    mine = [name for name in MODULES if room_of(name) == room]
    assert mine
    allowed = {room} | ROOMS.get(room, ROOMS.keys() - {"benchmarks"})
    for name in mine:
        rooms = {room_of(found) for found in IMPORTS[name].all if found in MODULES}
        assert rooms - allowed == EXCEPTIONS.get(name, set()), name


@pytest.mark.parametrize("room", NEVER_LOADS)
def test_no_module_loads_what_its_room_must_not(room):
    """A packing worker that imports torch holds 626 MB instead of 147."""
    ways = [way_to(name, NEVER_LOADS[room]) for name in MODULES if room_of(name) == room and name not in EXCEPTIONS]
    assert ways and [" -> ".join(way) for way in ways if way] == []


@pytest.mark.parametrize("room", ["shards", "preprocess"])
def test_nor_does_another_package_load_it(room):
    """One process imports all modules of the room, but those of an optional cluster."""
    names = sorted(name for name in MODULES if room_of(name) == room and "dask" not in name)
    assert len(names) > 10
    code = f"import {', '.join(names)}, sys; print(sorted({{'torch', 'nvidia', 'timm'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@pytest.mark.parametrize("folder", ["preprocess", "benchmarks", "docs/studies"])
def test_nothing_beside_a_script_hides_an_installed_package(folder):
    """Python puts a script's folder in front: beside preprocess/fetch.py, a folder `kaggle` would be imported first."""
    names = {path.stem for path in (ROOT / folder).iterdir() if path.suffix == ".py" or path.is_dir()}
    assert len(names) > 3 and not names & {*importlib.metadata.packages_distributions(), *sys.stdlib_module_names}
