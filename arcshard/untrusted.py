"""Read files that anyone may have written: nothing in them is executed, and memory stays near their size.

Each function raises ValueError for data of another form, whatever is wrong with it.
"""
import io
import json
import pickle
import re
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


# Pickles, which are programs: the few instructions that build lists, texts, numbers and NumPy's arrays of numbers. No
# function that a file names is called; arrays become lists by functions of our own.

PLAIN_OPCODES = (
    "PROTO FRAME STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT "
    "BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES UNICODE BINUNICODE SHORT_BINUNICODE LIST "
    "EMPTY_LIST APPEND APPENDS TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 DICT EMPTY_DICT SETITEM SETITEMS PUT BINPUT "
    "LONG_BINPUT GET BINGET LONG_BINGET MEMOIZE GLOBAL STACK_GLOBAL REDUCE BUILD").split()


def parse_pickle(data: bytes) -> Any:
    """The value of a pickle of dicts, lists, tuples, texts, bytes and numbers.

    NumPy's arrays, which protocol 5 may not hold, come as lists.
    """
    try:
        return _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # pickle's own parser raises nearly any type
        raise ValueError(f"is no pickle of lists, texts and numbers alone ({reason(error)})") from None


class _Unpickler(pickle._Unpickler):
    """pickle.Unpickler as it is written in Python: its table of instructions can be cut."""

    dispatch = {code: load for code, load in pickle._Unpickler.dispatch.items()
                if code in {getattr(pickle, name)[0] for name in PLAIN_OPCODES}}

    def find_class(self, module: str, name: str) -> Any:
        """Of what NumPy writes to make arrays, our own versions; anything else is refused."""
        known = {"_codecs.encode": _bytes, "__builtin__.bytes": _bytes, "numpy.dtype": _DType, "numpy.ndarray": None,
                 **{f"numpy.{core}.multiarray.{name}": made for core in ("core", "_core")
                    for name, made in (("_reconstruct", _no_values), ("scalar", _number))}}
        if (whole := f"{module}.{name}") not in known:
            raise ValueError(f"it asks for {whole!a}")
        return known[whole]


def _bytes(text: str = "", encoding: str = "latin1") -> bytes:
    """How protocols 0 to 2 hold bytes."""
    return text.encode("latin1")


class _DType:
    """A number's type: i8 is a signed integer of 8 bytes."""

    def __init__(self, code: str, *_: Any):
        if not re.fullmatch("b1|[iu][1248]|f[248]", code):
            raise ValueError(f"it has an array of {code!a}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder("S" if state[1] == ">" else "=")

    def values(self, data: str | bytes) -> np.ndarray:
        """Its numbers in bytes, which Python 2 wrote as text."""
        return np.frombuffer(_bytes(data) if isinstance(data, str) else data, self.dtype)


class _Values(list[Any]):
    """An array as a list of its values, or of lists."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        self[:] = kind.values(data).reshape(shape, order="F" if fortran else "C").tolist()


def _no_values(*_: Any) -> _Values:
    return _Values()


def _number(kind: _DType, data: str | bytes) -> Any:
    return kind.values(data).item()
