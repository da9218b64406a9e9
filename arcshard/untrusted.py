"""Read files that anyone may have written: nothing in them is executed, and memory stays near their size.

Each function raises ValueError for data of another form, whatever is wrong with it.
"""
import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import yaml

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
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Counts the values that a text stands for before any is made."""

    def __init__(self, text: str):
        super().__init__(text)
        self._values: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        node = super().compose_node(parent, index)
        if node is not None and node not in self._values:
            parts = () if isinstance(node, yaml.ScalarNode) else (
                chain(*node.value) if isinstance(node, yaml.MappingNode) else node.value)
            # an alias within its own value has no number yet
            self._values[node] = 1 + sum(self._values.get(part, MOST_VALUES) for part in parts)
            if self._values[node] > MOST_VALUES:
                raise yaml.YAMLError(f"stands for over {MOST_VALUES:,} values, by aliases of aliases")
            if node.tag == "tag:yaml.org,2002:int" and len(node.value) > LONGEST_INT:
                raise yaml.YAMLError(f"has a number of over {LONGEST_INT:,} digits")
        return node


# NumPy's .npy


def read_array(path: Path, dtype: np.dtype | None = None, ndim: int = 1, mmap: bool = False) -> np.ndarray:
    """The array of an .npy file, which must have that dtype and number of dimensions; mmap: mapped, read-only.

    Raises OSError for a file that cannot be opened.
    """
    try:
        with np.errstate(over="raise"):  # of a shape's product
            # mapped in any case: NumPy then compares the shape with the file's size, instead of allocating the shape
            mapped = np.load(path, mmap_mode="r")
    except OSError as error:
        if error.filename is not None:
            raise
        raise ValueError(f"is no .npy file ({error})") from None
    except Exception as error:  # the parsers of headers raise nearly any type
        raise ValueError(f"is no .npy file ({str(error).partition(chr(10))[0] or type(error).__name__})") from None
    if not isinstance(mapped, np.ndarray):
        raise ValueError("is no .npy file but a zip of them")
    if dtype not in (None, mapped.dtype) or mapped.ndim != ndim or not mapped.dtype.itemsize:
        raise ValueError(f"holds {mapped.dtype} of shape {mapped.shape}, not {ndim} dimensions of {dtype or 'values'}")
    return mapped if mmap else np.array(mapped)
