"""A store: the embeddings of one split by one model, as a folder of arrays.

embeddings.npy     float32 or float16 (N, D), rows of length 1, for np.load(..., mmap_mode="r")
keys.npy, landmark_ids.npy   bytes (N,)     labels.npy   int64 (N,)
meta.json          format, model, dataset, split, tta, and each file's size and sha256; written last: with it the
                   folder is a store

A store that is being written has a folder of parts, runs of rows in files of their own that outlive a kill.
"""
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import dtype_to_descr, write_array, write_array_header_1_0
from numpy.typing import NDArray

from arcshard.console import UserError
from arcshard.files import sha256, sync_folder, whole_file, write_text
from arcshard.untrusted import parse_json, read_array

FORMAT = "arcshard-embeddings-2"
META, VECTORS, KEYS, LABELS, LANDMARK_IDS = "meta.json", "embeddings.npy", "keys.npy", "labels.npy", "landmark_ids.npy"
DTYPES = ("float32", "float16")
BLOCK = 2**14  # rows checked at a time: 32 MB at 512 float32
ROWS = 4096  # of a part; a kill costs each rank less than one part


@dataclass(frozen=True)
class Provenance:
    """Where embeddings come from: equal for the same photos embedded by the same weights, views and size."""
    model: str
    """Fingerprint of the weights."""
    dataset: str
    """Fingerprint of the split's photos."""
    split: str
    tta: str = "none"
    """Views that each embedding is the mean of."""
    size: int = 0
    """Side of the images, pixels; 0 where older versions wrote the store, which do not say it."""


@dataclass(frozen=True)
class Embeddings:
    """N embeddings in the order of their split. Raises ValueError for fields of unequal length, a key that occurs twice
    and vectors that are not finite."""
    vectors: NDArray[np.floating]
    """float32 or float16 (N, D), rows of length 1; memory-mapped where they were loaded."""
    keys: list[str]
    """N sample keys."""
    labels: NDArray[np.int64]
    """(N,), -1 for no landmark."""
    landmark_ids: list[str]
    """N landmark ids as the dataset names them, "" for none."""
    provenance: Provenance

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.vectors.dtype not in DTYPES:
            raise ValueError(f"vectors is {self.vectors.dtype} of shape {self.vectors.shape}: give a "
                             f"{' or '.join(DTYPES)} matrix")
        rows = [len(self.vectors), len(self.keys), len(self.labels), len(self.landmark_ids)]
        if len(set(rows)) > 1:
            raise ValueError(f"vectors, keys, labels and landmark_ids have the lengths {rows}: give equal ones")
        commonest, times = Counter(self.keys).most_common(1)[0] if self.keys else ("", 0)
        if times > 1:
            raise ValueError(f"the photo {commonest} has {times} rows of embeddings instead of one")
        for start in range(0, rows[0], BLOCK):
            refuse_broken(self.vectors[start:start + BLOCK], self.keys[start:start + BLOCK])

    def save(self, folder: str | Path) -> None:
        """Write the store; the same embeddings give the same bytes."""
        write_store(Path(folder), [self.vectors], self.keys, self.labels, self.landmark_ids, self.provenance)

    @classmethod
    def load(cls, folder: str | Path) -> "Embeddings":
        """Map what `save` or `write_store` wrote. Raises UserError for a missing store and for anything else."""
        folder = Path(folder)
        provenance = _read_meta(folder)
        try:
            vectors = read_array(folder / VECTORS, ndim=2, mmap=True)
            keys, landmark_ids = (_decode(read_array(folder / name)) for name in (KEYS, LANDMARK_IDS))
            labels = read_array(folder / LABELS, np.dtype(np.int64))
            return cls(vectors, keys, labels, landmark_ids, provenance)
        except ValueError as error:
            raise UserError(f"{folder}: {error}: delete it and embed again") from error


def write_store(folder: Path, blocks: Iterable[NDArray[np.floating]], keys: list[str], labels: NDArray[np.integer],
                landmark_ids: list[str], provenance: Provenance) -> None:
    """Write a store from blocks of vectors, at least one and all of one dtype and width, in the order of the keys.

    Memory beside the arguments is that of a block. A kill at any moment leaves a folder that is no store. Raises
    ValueError for vectors that are not finite or not one a key.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / META).unlink(missing_ok=True)
    sync_folder(folder)
    _write_vectors(folder / VECTORS, blocks, keys)
    arrays = {KEYS: _encode(keys), LABELS: labels.astype(np.int64), LANDMARK_IDS: _encode(landmark_ids)}
    for name, array in arrays.items():
        with whole_file(folder / name) as f:
            write_array(f, array, allow_pickle=False)
    files = {name: {"size": (folder / name).stat().st_size, "sha256": sha256(folder / name, show=True)}
             for name in (VECTORS, *arrays)}
    write_text(folder / META, json.dumps({"format": FORMAT, **asdict(provenance), "files": files}, indent=2) + "\n")


def _write_vectors(path: Path, blocks: Iterable[NDArray[np.floating]], keys: list[str]) -> None:
    written = 0
    with whole_file(path) as f:
        for block in blocks:
            if not written:
                write_array_header_1_0(f, {"descr": dtype_to_descr(block.dtype), "fortran_order": False,
                                           "shape": (len(keys), block.shape[1])})
            refuse_broken(block, keys[written:written + len(block)])
            f.write(block.tobytes())
            written += len(block)
        if written != len(keys):
            raise ValueError(f"{written:,} vectors came for {len(keys):,} keys")


def refuse_broken(vectors: NDArray[np.floating], keys: list[str]) -> None:
    """Raises ValueError unless all numbers are finite."""
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(broken):
        raise ValueError(f"embeddings hold NaN or infinity in {len(broken)} of {len(vectors)} rows, "
                         f"first {keys[broken[0]]}")


def is_store(folder: str | Path) -> bool:
    """Whether the folder claims to be a store."""
    return (Path(folder) / META).is_file()


def _read_meta(folder: Path) -> Provenance:
    if not is_store(folder):
        raise UserError(f"{folder} holds no embeddings (no {META}): run evaluate.py or python -m retrieval embed first")
    try:
        meta = parse_json((folder / META).read_bytes())
        if meta["format"] != FORMAT:
            raise UserError(f"{folder} holds embeddings of format {meta['format']}, not {FORMAT}: delete it and embed "
                            "again")
        for name in (VECTORS, KEYS, LABELS, LANDMARK_IDS):
            path, known = folder / name, meta["files"][name]
            if path.stat().st_size != known["size"] or sha256(path, show=True) != known["sha256"]:
                raise UserError(f"{path} is not as it was written: delete {folder} and embed again")
        if not isinstance(size := meta.get("size", 0), int):
            raise ValueError
        return Provenance(str(meta["model"]), str(meta["dataset"]), str(meta["split"]), str(meta["tta"]), size)
    except (ValueError, KeyError, TypeError, FileNotFoundError):
        raise UserError(f"{folder} is damaged: delete it and embed again") from None


def _encode(texts: list[str]) -> NDArray[np.bytes_]:
    return np.array([text.encode() for text in texts], np.bytes_)  # a quarter of the size of numpy's UTF-32


def _decode(texts: NDArray[np.bytes_]) -> list[str]:
    if texts.dtype.kind != "S":
        raise ValueError(f"holds {texts.dtype}, not texts in bytes")
    return [text.decode() for text in texts.tolist()]


# A store that is being written.


class Parts:
    """The parts of a store of `rows` rows, in a folder inside it. Processes may write different parts at once.

    dtype: float32 or float16. part_rows: rows of each part; the last may have fewer.
    """

    def __init__(self, store: Path, provenance: Provenance, rows: int, dtype: str, part_rows: int = ROWS):
        self.folder, self.rows, self.dtype, self.part_rows = store / "parts", rows, dtype, part_rows
        plan = {**asdict(provenance), "rows": rows, "dtype": dtype, "part": part_rows}
        self._plan = json.dumps(plan, indent=2) + "\n"

    def begin(self) -> None:
        """Make the folder, and delete parts of other embeddings in it. One process calls it, before any writes."""
        plan = self.folder / "plan.json"
        if not plan.is_file() or plan.read_bytes() != self._plan.encode():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            sync_folder(self.folder.parent)
            write_text(plan, self._plan)

    def missing(self) -> list[int]:
        """Numbers of the parts yet to be written, ascending."""
        return [number for number in range(-(-self.rows // self.part_rows)) if not self._path(number).is_file()]

    def rows_of(self, first: int, last: int) -> range:
        """Rows of the parts from `first` to `last`."""
        return range(first * self.part_rows, min((last + 1) * self.part_rows, self.rows))

    def write(self, number: int, vectors: NDArray[np.float32]) -> None:
        with whole_file(self._path(number)) as f:
            write_array(f, vectors.astype(self.dtype), allow_pickle=False)

    def blocks(self) -> Iterator[NDArray[np.floating]]:
        """All parts in order, each read when it is needed."""
        widths = set[int]()
        for number in range(-(-self.rows // self.part_rows)):
            try:
                block = read_array(self._path(number), np.dtype(self.dtype), ndim=2)
                widths.add(block.shape[1])
                if len(block) != len(self.rows_of(number, number)) or len(widths) > 1:
                    raise ValueError(f"holds the shape {block.shape}")
            except ValueError as error:
                raise UserError(f"{self._path(number)} {error}: delete it and embed again") from None
            yield block

    def remove(self) -> None:
        shutil.rmtree(self.folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npy"


def in_parts(batches: Iterator[NDArray[np.float32]], rows: int) -> Iterator[NDArray[np.float32]]:
    """The same rows, `rows` at a time; the last part may have fewer."""
    held: list[NDArray[np.float32]] = []
    for batch in batches:
        held.append(batch)
        while sum(map(len, held)) >= rows:
            joined = np.concatenate(held)
            yield joined[:rows]
            held = [joined[rows:]]
    rest = np.concatenate(held) if held else np.zeros((0, 0), np.float32)
    if len(rest):
        yield rest


def runs(numbers: list[int]) -> list[tuple[int, int]]:
    """First and last of each run of consecutive numbers; they ascend."""
    breaks = [i for i in range(1, len(numbers)) if numbers[i] != numbers[i - 1] + 1]
    return [(numbers[a], numbers[b - 1]) for a, b in zip([0, *breaks], [*breaks, len(numbers)])] if numbers else []


def share(numbers: list[int], rank: int, size: int) -> list[int]:
    """The rank-th of `size` contiguous shares, whose lengths differ by at most one."""
    return numbers[rank * len(numbers) // size:(rank + 1) * len(numbers) // size]
