"""Write the demo's photos, one place after the other in several processes."""
from pathlib import Path

import cv2
from joblib import Parallel, delayed

from arcshard.console import progress
from arcshard.files import whole_file
from preprocess.demo.plan import Photo, encode, generator
from preprocess.demo.sources import PLACES
from preprocess.demo.views import load_source, render_view

QUALITY = (35, 93)  # of a JPEG, from and below


def write_photos(photos: list[Photo], out: Path, workers: int) -> None:
    """Write each photo below `out` in that many processes; each file appears whole, its bytes depend on the photo
    and its seed only.
    """
    places = [[photo for photo in photos if photo.place == place] for place in PLACES]
    with progress(total=len(photos), unit="photos", what="demo photos") as bar:
        parallel = Parallel(n_jobs=workers, return_as="generator_unordered")
        for written in parallel(delayed(write_place)(group, out) for group in places if group):
            bar.update(written)


def write_place(photos: list[Photo], out: Path) -> int:
    """Write photos of one place; returns how many."""
    cv2.setNumThreads(1)  # the processes share the cores already
    sources = [load_source(source) for source in PLACES[photos[0].place]]
    for photo in photos:
        rng = generator(photo.seed, photo.place, photo.number)
        view = render_view(sources[photo.number % len(sources)], rng)
        path = out / photo.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as f:
            f.write(encode(view, int(rng.integers(*QUALITY)), photo.oddity))
    return len(photos)
