"""The photos that loaders are measured on, in every form that one of them reads."""
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from packing_contests import ROOT, RUNNERS, answer
from packing_photos import HEIGHT, QUALITY, make_photos, photo_path, write_table

from arcshard.files import write_text
from shards import Dataset

SHARDS = 4  # each worker of the webdataset library needs one
PACKED_QUALITY = 90  # JPEG quality of photos that are resized


class Form(NamedTuple):
    """A size of the photos. short_side: pixels; None: the originals' bytes as they are."""

    name: str
    short_side: int | None


ORIGINALS, PACKED, TINY = Form("originals", None), Form("short288", 288), Form("tiny", 64)


def make_form(form: Form, work: Path, count: int, workers: int) -> Path:
    """The folder of `count` photos as files and as arcshard's shards, the same bytes in both; kept for the next run.

    photos/ has the files, list.txt their paths, originals.txt those they were made of, dataset/ the shards.
    """
    folder = work.resolve() / f"{form.name}-{count}"
    originals = work.resolve() / f"{ORIGINALS.name}-{count}"
    photos = make_photos(originals, count, workers)
    once(folder / "dataset", lambda out: pack(form, photos, originals, out, workers))
    once(folder / "photos", lambda out: unpack(Dataset(folder / "dataset", "train"), out))
    write_list(folder / "originals.txt", photos)
    write_list(folder / "list.txt", sorted((folder / "photos").rglob("*.jpg")))
    return folder


def write_list(path: Path, photos: Sequence[Path]) -> None:
    write_text(path, "".join(f"{photo}\n" for photo in photos))


def pack(form: Form, photos: Sequence[Path], originals: Path, out: Path, workers: int) -> None:
    table = out.with_suffix(".csv")
    write_table(table, [photo.stem for photo in photos])
    resize = ["--short-side", form.short_side, "--quality", PACKED_QUALITY] if form.short_side else []
    answer([sys.executable, ROOT / "preprocess" / "make_shards.py", "--samples", table, "--images",
            originals / "photos", "--out", out, "--workers", workers, "--shard-size", -(-len(photos) // SHARDS),
            *resize])


def unpack(dataset: Dataset, out: Path) -> None:
    """The dataset's photos as files."""
    for i, key in enumerate(dataset.index["key"].tolist()):
        path = photo_path(out, key.decode())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dataset.read(i))


def pack_with(peer: str, form: Form, folder: Path, python: Path) -> None:
    """The same photos in a peer's own format, in FOLDER/PEER: ffcv's from the originals, others' byte by byte."""
    options = ["--list", folder / "list.txt", "--workers", 1]
    if peer == "ffcv":  # cannot take JPEGs as they are: encodes again, at a quality that gives about the same bytes
        options = ["--list", folder / "originals.txt", "--short-side", form.short_side or HEIGHT,
                   "--quality", PACKED_QUALITY if form.short_side else QUALITY]

    def write(out: Path) -> None:
        out.mkdir()
        answer([python, RUNNERS / f"{peer}_writer.py", "--out", out, *options], PYTHONPATH=str(ROOT))

    once(folder / peer, write)


def once(path: Path, make: Callable[[Path], None]) -> None:
    """make(a path beside it), then rename: what is there under its name is whole, and not made again."""
    if not path.exists():
        aside = path.with_name(f"{path.name}-part")
        shutil.rmtree(aside, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        make(aside)
        aside.rename(path)
