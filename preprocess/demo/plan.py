"""Which photos the demo has, with which ids and landmarks: pure functions of the seed."""
import functools
import hashlib
import io
import zlib
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from cv2.typing import MatLike
from PIL import Image

from preprocess.demo.sources import LANDMARKS, NON_LANDMARKS

# Image files as in real data: mostly plain JPEGs, some damaged, some not what their names say.

HTML = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>\n"
ORIENTATION = 0x0112  # EXIF tag; 6: turn a quarter clockwise to see it upright


def encode(view: MatLike, quality: int, oddity: str = "") -> bytes:
    """The bytes of an image file. view: BGR uint8 (H, W, 3). quality: 1-100, of lossy formats. oddity: see ODDITIES."""
    return ODDITIES[oddity](view, quality) if oddity else _opencv(".jpg", view, cv2.IMWRITE_JPEG_QUALITY, quality)


def _opencv(extension: str, view: MatLike, *parameters: int) -> bytes:
    done, data = cv2.imencode(extension, view, parameters)
    assert done
    return data.tobytes()


def _pillow(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


def _upright(view: MatLike) -> Image.Image:
    return Image.fromarray(cv2.cvtColor(view, cv2.COLOR_BGR2RGB))


def _truncated(view: MatLike, quality: int) -> bytes:
    whole = encode(view, quality)
    return whole[:len(whole) * 3 // 5]


def _turned(view: MatLike, quality: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return _pillow(_upright(view).transpose(Image.Transpose.ROTATE_90), quality=quality, exif=exif)


def _png16(view: MatLike, quality: int) -> bytes:
    gray = cv2.cvtColor(view, cv2.COLOR_BGR2GRAY).astype(np.uint16)
    return _opencv(".png", gray * 257)  # 255 -> 65535


# Unusual files that real data contains, by name.
ODDITIES: dict[str, Callable[[MatLike, int], bytes]] = {
    "truncated": _truncated,
    "empty": lambda view, quality: b"",
    "html": lambda view, quality: HTML,
    "progressive": lambda view, quality: _pillow(_upright(view), quality=quality, progressive=True),
    "cmyk": lambda view, quality: _pillow(_upright(view).convert("CMYK"), quality=quality),
    "gray": lambda view, quality: _pillow(_upright(view).convert("L"), quality=quality),
    "exif_rotated": _turned,
    "png16": _png16,
    "webp": lambda view, quality: _opencv(".webp", view, cv2.IMWRITE_WEBP_QUALITY, quality),
}
MISSING = "missing"  # in the CSV, but not on disk


LARGEST = 80  # images of a landmark
MIN_IMAGES = 15  # the usual filter for Google Landmarks
SMALL = 16  # landmarks with fewer
MAX_LANDMARK_ID = 203_093  # Google Landmarks v2 has 203,094
FIRST_QUERY = 1000  # number of a view; no landmark has as many in train/, so no query is one of them
QUERIES = {"large": 112, "small": 13, "none": 125}  # by what they show: large or small landmarks, or none
FIRST_UNSEEN_QUERY = 2000
UNSEEN_QUERIES = 8  # of each small landmark


class Photo(NamedTuple):
    """One row of a CSV: a numbered view of a place, and where its file goes."""

    id: str
    seed: int
    split: str
    place: str
    number: int
    landmark_id: int | None  # None: no landmark
    oddity: str = ""

    @property
    def path(self) -> str:
        """Relative to the output folder, as on Kaggle."""
        return f"{self.split}/{'/'.join(self.id[:3])}/{self.id}.jpg"


def generator(seed: int, name: str, number: int = 0) -> np.random.Generator:
    """A random generator of its own for each (seed, name, number)."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), number])


def class_sizes() -> list[int]:
    """Train images by rank: a Zipf-Mandelbrot tail from LARGEST to MIN_IMAGES, then SMALL landmarks from 14 to 2."""
    large = len(LANDMARKS) - SMALL
    decay = np.log(LARGEST / MIN_IMAGES) / np.log((large + 5) / 6)
    tail = [round(LARGEST * (6 / (rank + 5)) ** decay) for rank in range(1, large + 1)]
    return tail + [round(14 - 12 * i / (SMALL - 1)) for i in range(SMALL)]


def ranking(seed: int) -> list[str]:
    """Landmarks from the most to the least photographed, by seed."""
    names = list(LANDMARKS)
    return [names[i] for i in generator(seed, "ranking").permutation(len(names))]


def planted(seed: int) -> dict[str, str]:
    """Ids of the odd train photos by kind: the first views of the most photographed landmarks."""
    return {kind: _photo_id(seed, place, 0) for kind, place in zip([*ODDITIES, MISSING], ranking(seed))}


def train_photos(seed: int) -> list[Photo]:
    """All rows of train.csv, sorted by id."""
    oddities = {id: kind for kind, id in planted(seed).items()}
    photos = [_photo(seed, "train", place, number)
              for place, size in zip(ranking(seed), class_sizes()) for number in range(size)]
    return sorted(photo._replace(oddity=oddities.get(photo.id, "")) for photo in photos)


def query_photos(seed: int) -> list[Photo]:
    """All queries, sorted by id: views that train/ does not have, evenly distributed over the places."""
    ranked = ranking(seed)
    groups = {"large": ranked[:-SMALL], "small": ranked[-SMALL:], "none": list(NON_LANDMARKS)}
    photos = []
    for group, places in groups.items():
        order = generator(seed, f"queries {group}").permutation(len(places))
        for i in range(QUERIES[group]):
            turn, at = divmod(i, len(places))
            photos.append(_photo(seed, "test", places[order[at]], FIRST_QUERY + turn))
    return sorted(photos)


def unseen_photos(seed: int) -> list[Photo]:
    """Queries, sorted by id, of the small landmarks, which training does not see; their gallery is in train/."""
    return sorted(_photo(seed, "unseen", place, FIRST_UNSEEN_QUERY + i)
                  for place in ranking(seed)[-SMALL:] for i in range(UNSEEN_QUERIES))


def csv_files(seed: int) -> dict[str, str]:
    """The texts of Kaggle's CSV files by name, and of the sample table of the landmarks that training does not see."""
    train, queries = train_photos(seed), query_photos(seed)
    guess = landmark_ids(seed)[ranking(seed)[0]]
    return {
        "unseen.csv": _csv("id,landmark_id,label,split", _unseen_rows(seed)),
        "sample_submission.csv": _csv("id,landmarks", [f"{photo.id},{guess} 0.1" for photo in queries]),
        "test_solution.csv": _csv("id,landmarks,Usage", [_solution_row(photo) for photo in queries]),
        "train.csv": _csv("id,landmark_id", [f"{photo.id},{photo.landmark_id}" for photo in train]),
    }


@functools.cache
def landmark_ids(seed: int) -> dict[str, int]:
    """Ids by landmark, as on Kaggle: distinct, with gaps, in random order."""
    drawn = generator(seed, "landmark ids").choice(MAX_LANDMARK_ID + 1, len(LANDMARKS), replace=False)
    return dict(zip(LANDMARKS, drawn.tolist()))


def _photo(seed: int, split: str, place: str, number: int) -> Photo:
    return Photo(_photo_id(seed, place, number), seed, split, place, number, landmark_ids(seed).get(place))


def _photo_id(seed: int, place: str, number: int) -> str:
    return hashlib.sha256(f"{seed} {place} {number}".encode()).hexdigest()[:16]


def _unseen_rows(seed: int) -> list[str]:
    small = ranking(seed)[-SMALL:]
    gallery = [photo for photo in train_photos(seed) if photo.place in small]
    return [f"{photo.id},{photo.landmark_id},{small.index(photo.place)},{split}"
            for split, photos in (("train", gallery), ("test", unseen_photos(seed))) for photo in photos]


def _solution_row(photo: Photo) -> str:
    usage = "Public" if int(photo.id, 16) % 3 == 0 else "Private"
    return f"{photo.id},{'' if photo.landmark_id is None else photo.landmark_id},{usage}"


def _csv(header: str, rows: list[str]) -> str:
    return "\n".join([header, *rows]) + "\n"
