"""Read files that anyone may have written: nothing in them is executed, and memory stays near their size.

Each function raises ValueError for data of another form, whatever is wrong with it.
"""
import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.lib.format import open_memmap

LONGEST_REASON = 300  # characters


def reason(error: Exception) -> str:
    """What an exception of a library says, on one line and not too long."""
    return str(error).partition("\n")[0][:LONGEST_REASON] or type(error).__name__


# JSON


def parse_json(data: str | bytes) -> Any:
    """The value of a JSON text."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("is nested too deeply") from None


# YAML, which can name objects of Python, and a few lines of which can stand for billions by aliases of aliases.

LARGEST_YAML = 10**5  # characters; PyYAML takes a second or so for them
MOST_VALUES = 10**5  # with those of an alias counted wherever it stands
LONGEST_INT = 1000  # characters; Python does not print numbers of over 4300 digits


def parse_yaml(text: str) -> Any:
    """The value of a YAML text: mappings, lists, text, numbers and dates."""
    if len(text) > LARGEST_YAML:
        raise ValueError(f"has {len(text):,} characters, over {LARGEST_YAML:,}")
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())[:LONGEST_REASON]) from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Counts the values that a text stands for before any is made."""

    def __init__(self, text: str):
        super().__init__(text)
        self._values: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if not is_alias:
            parts = () if isinstance(node, yaml.ScalarNode) else (
                chain(*node.value) if isinstance(node, yaml.MappingNode) else node.value)
            self._values[node] = 1 + sum(self._values[part] for part in parts)
            if self._values[node] > MOST_VALUES:
                raise yaml.YAMLError(f"stands for over {MOST_VALUES:,} values, by aliases of aliases")
            if node.tag == "tag:yaml.org,2002:int" and len(node.value) > LONGEST_INT:
                raise yaml.YAMLError(f"has a number of over {LONGEST_INT:,} digits")
        elif node not in self._values:
            raise yaml.YAMLError("has an alias within what it stands for")
        return node


# NumPy's .npy


def read_array(path: Path, dtype: np.dtype | None = None, ndim: int = 1, mmap: bool = False) -> np.ndarray:
    """The array of an .npy file, which must have that dtype and number of dimensions; mmap: mapped, read-only.

    Raises OSError for a file that cannot be opened.
    """
    try:
        with np.errstate(over="raise"):  # of a shape's product
            # mapped in any case: NumPy then compares the shape with the file's size, instead of allocating the shape
            mapped: np.ndarray = open_memmap(path, "r")
    except OSError:
        raise
    except Exception as error:  # NumPy's parser of headers raises nearly any type
        raise ValueError(f"is no .npy file ({reason(error)})") from None
    # not `dtype in (None, …)`: to NumPy, float64 equals None
    if dtype is not None and mapped.dtype != dtype or mapped.ndim != ndim or not mapped.dtype.itemsize:
        raise ValueError(f"holds {mapped.dtype} of shape {mapped.shape}, not {ndim} dimensions of {dtype or 'values'}")
    return mapped if mmap else np.array(mapped)
