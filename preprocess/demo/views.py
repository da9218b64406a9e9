"""Views of a photograph as other visitors might have taken them: standpoint, lens, flowers in front, light.

A view is a pure function of its photo and generator. Crop, rotation and perspective are one warp, so that pixels are
resampled once.

Their strength was chosen with ImageNet features (tf_efficientnet_lite0, 128 px, nearest neighbor among the train views
of landmarks with 15 or more, a fifth held out, seed 0): recall@1 is 0.88 without the flowers, which leaves training
little to gain, and 0.63 with them. People still recognize the places.
"""
import functools
from pathlib import Path

import cv2
import numpy as np
from cv2.typing import MatLike
from joblib import Parallel, delayed
from numpy.typing import NDArray

from arcshard.console import progress
from arcshard.files import whole_file
from arcshard.workers import end_with_parent
from preprocess.demo.plan import Photo, encode, generator
from preprocess.demo.sources import FOREGROUND, PLACES, Source, source_path

LONG_SIDE = 800  # pixels of a view, or twice its crop's if that is less
SOURCE_SIDE = 1280  # pixels; larger photos are shrunk, so that one bilinear look-up for each pixel does not alias
CROP_AREA = (0.2, 0.7)  # share of the photo; small ones are more frequent
TILT = 35  # degrees to either side
SKEW = 0.2  # of the crop's sides, how far each corner moves at most: the perspective
FLOWER_BEDS = (0.2, 0.4, 0.4)  # probability of none, one, two in a view
GRAY = 0.2  # probability of a view without color
QUALITY = (35, 93)  # JPEG quality, from and below


def load_source(source: Source) -> MatLike:
    """The source as BGR uint8 (H, W, 3), at most SOURCE_SIDE on its long side."""
    left, top, right, bottom = source.box or (0, 0, None, None)
    photo = _read(source.file)[top:bottom, left:right]
    scale = min(1.0, SOURCE_SIDE / max(photo.shape))
    return cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


@functools.lru_cache(maxsize=2)  # neighboring tiles come from the same one or two files of 24 MB each, decoded
def _read(file: str) -> MatLike:
    photo = cv2.imread(str(source_path(file)), cv2.IMREAD_COLOR)
    assert photo is not None, file
    return photo


def render_view(photo: MatLike, rng: np.random.Generator) -> MatLike:
    """Draw a view, BGR uint8 (H, W, 3), of a photo of the same form."""
    corners, size = draw_corners(rng, photo.shape[1], photo.shape[0])
    scale = min(LONG_SIDE, 2 * max(size)) / max(size)
    view = _cut(photo, corners, (round(size[0] * scale), round(size[1] * scale)))
    for _ in range(rng.choice(len(FLOWER_BEDS), p=FLOWER_BEDS)):
        view = grow_flowers(view, rng)
    return relight(view, rng)


def draw_corners(rng: np.random.Generator, width: int, height: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw a crop: its corners (4, 2) in pixels, clockwise from top left, and its width and height (2,).

    It lies within the photo of width × height pixels; one that is too large or tilted is scaled down.
    """
    frame = np.array([width, height], dtype=np.float64)
    area = CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * rng.uniform() ** 2
    stretch = np.exp(rng.uniform(-0.25, 0.25))
    size = frame * np.sqrt(area) * [stretch, 1 / stretch]
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]) + rng.uniform(-SKEW, SKEW, (4, 2))
    tilt = np.radians(rng.uniform(-TILT, TILT))
    rotation = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    corners = corners * size @ rotation
    fit = min(1.0, *(frame / np.ptp(corners, axis=0)))
    corners = (corners - corners.min(axis=0)) * fit
    room = np.maximum(0, frame - corners.max(axis=0))
    return corners + rng.uniform(size=2) * room, size * fit


def _cut(photo: MatLike, corners: NDArray[np.float64], size: tuple[int, int]) -> MatLike:
    """Warp the quadrilateral onto a picture of size (width, height)."""
    width, height = size
    onto = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float32)
    warp = cv2.getPerspectiveTransform(corners.astype(np.float32), onto)
    return cv2.warpPerspective(photo, warp, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def grow_flowers(view: MatLike, rng: np.random.Generator) -> MatLike:
    """Let a flower bed hide a part of the view, from a random point on its border inwards."""
    height, width = view.shape[:2]
    bed = _flower_beds()[rng.integers(len(FOREGROUND))]
    corners, _ = draw_corners(rng, bed.shape[1], bed.shape[0])
    flowers = _cut(bed, corners, (width, height))
    shown = _bush(rng, width, height)
    return cv2.blendLinear(view, flowers, 1 - shown, shown)


@functools.cache
def _flower_beds() -> list[MatLike]:
    return [load_source(source) for source in FOREGROUND]


def _bush(rng: np.random.Generator, width: int, height: int) -> MatLike:
    """A ragged, soft-edged blob on the border: float32 (height, width) in [0, 1]."""
    along = rng.uniform()
    middle = [(along, 0), (1, along), (along, 1), (0, along)][rng.integers(4)] * np.array([width, height])
    angle = np.sort(rng.uniform(0, 2 * np.pi, 24))
    radius = max(width, height) * rng.uniform(0.2, 0.45) * rng.uniform(0.7, 1.3, 24)
    outline = middle + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    mask = np.zeros((height, width), np.float32)
    cv2.fillPoly(mask, [np.rint(outline).astype(np.int32)], [1.0])
    return cv2.blur(mask, (9, 9))


def relight(view: MatLike, rng: np.random.Generator) -> MatLike:
    """Change exposure, contrast, white balance and saturation."""
    levels = np.linspace(0, 1, 256)[:, None] ** np.exp(rng.uniform(-0.7, 0.7))
    levels = 0.5 + (levels - 0.5) * rng.uniform(0.5, 1.3) + rng.uniform(-0.15, 0.15)
    levels = levels * np.exp(rng.uniform(-0.25, 0.25, 3))
    view = cv2.LUT(view, np.rint(levels.clip(0, 1) * 255).astype(np.uint8)[None])
    saturation = 0.0 if rng.uniform() < GRAY else rng.uniform(0.3, 1.4)
    gray = cv2.cvtColor(cv2.cvtColor(view, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return cv2.addWeighted(view, saturation, gray, 1 - saturation, 0)


def write_photos(photos: list[Photo], out: Path, workers: int) -> None:
    """Write the photos below `out`, one task per place in that many processes.

    Each file appears whole; its bytes depend only on the photo and its seed.
    """
    places = [[photo for photo in photos if photo.place == place] for place in PLACES]
    with progress(total=len(photos), unit="photos", what="demo photos") as bar:
        parallel = Parallel(n_jobs=workers, return_as="generator_unordered", **end_with_parent())
        for written in parallel(delayed(write_place)(group, out) for group in places if group):
            bar.update(written)


def write_place(photos: list[Photo], out: Path) -> int:
    """Write photos of one place; returns their number."""
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
