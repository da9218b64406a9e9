"""Photos that packing is measured on: crops of real photographs, in the layout of Google Landmarks on Kaggle."""
import hashlib
from functools import cache
from pathlib import Path

import cv2
import joblib
import numpy as np
from cv2.typing import MatLike

from arcshard.console import UserError, progress
from arcshard.files import write_text
from preprocess.demo.sources import LANDMARKS, check_package
from preprocess.demo.views import load_source

PHOTOS = "photos"  # folder
WIDTH, HEIGHT = 800, 600  # pixels
QUALITY = 68  # JPEG quality at which the crops have 72 KB on average
CLASSES = 100
HEADER = "id,landmark_id,label,split"
BATCH = 250  # photos a joblib task


def make_photos(folder: Path, count: int, workers: int) -> list[Path]:
    """Write the first `count` photos, or those of them that are missing, to FOLDER/PHOTOS; returns all their paths.

    Baseline JPEGs, 4:2:0, WIDTH × HEIGHT, about 72 KB: they are in normal form, so that packing keeps their bytes. Each
    is a pure function of its number. Raises UserError if the package of the photographs is not installed.
    """
    check_package()
    paths = [photo_path(folder.resolve() / PHOTOS, photo_id(number)) for number in range(count)]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    batches = [missing[start:start + BATCH] for start in range(0, len(missing), BATCH)]
    done = joblib.Parallel(n_jobs=workers, return_as="generator_unordered")(
        joblib.delayed(_write_crops)(batch, [paths[number] for number in batch]) for batch in batches)
    for _ in progress(done, total=len(batches), unit=f"× {BATCH} photos", what="make photos", disable=not batches):
        pass
    return paths


def photo_id(number: int) -> str:
    """16 hexadecimal digits, as Google Landmarks names its photos."""
    return hashlib.blake2b(str(number).encode(), digest_size=8).hexdigest()


def photo_path(folder: Path, key: str) -> Path:
    return folder.joinpath(*key[:3], f"{key}.jpg")


def write_table(path: Path, keys: list[str]) -> None:
    """The sample table of those photos: split train, CLASSES classes (fewer if there are fewer photos)."""
    rows = (f"{key},{1000 + number % CLASSES},{number % CLASSES},train" for number, key in enumerate(keys))
    write_text(path, "\n".join([HEADER, *rows]) + "\n")


@cache
def _photographs() -> list[MatLike]:
    """Real photographs that are large enough, BGR uint8."""
    loaded = (load_source(source) for sources in LANDMARKS.values() for source in sources)
    return [photo for photo in loaded if photo.shape[0] >= HEIGHT and photo.shape[1] >= WIDTH]


def _write_crops(numbers: list[int], paths: list[Path]) -> None:
    for number, path in zip(numbers, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".part")
        aside.write_bytes(_crop(number))
        aside.replace(path)


def _crop(number: int) -> bytes:
    rng = np.random.default_rng(number)
    photos = _photographs()
    photo = photos[rng.integers(len(photos))]
    y, x = (rng.integers(side - cut + 1) for side, cut in zip(photo.shape, (HEIGHT, WIDTH)))
    done, data = cv2.imencode(".jpg", photo[y:y + HEIGHT, x:x + WIDTH], (cv2.IMWRITE_JPEG_QUALITY, QUALITY))
    if not done:
        raise UserError("OpenCV must write JPEG, but its build here does not: install opencv-python-headless")
    return data.tobytes()
