"""Pictures of answers: queries beside their neighbors, two photos and their inliers; names of landmarks."""
import numpy as np
import pytest
from PIL import Image, ImageFont

from arcshard.names import title
from pages.templates import thumbnail
from retrieval.local_features import Inliers
from retrieval.pictures import (
    BOX_HEIGHT,
    BOX_WIDTH,
    FONT,
    LINE,
    LINES,
    MARGIN,
    PAIR_GAP,
    PAIR_HEIGHT,
    PAIR_WIDTH,
    Shown,
    _clipped,
    match_picture,
    neighbors_picture,
)
from tests.test_report_page import jpeg


def test_each_photo_has_its_place_and_words_below():
    """Two queries of two and no neighbors: a frame around the first, photos in the middle of their boxes."""
    wide, tall = jpeg("lime", (400, 100)), jpeg("magenta", (30, 600))
    pixels = neighbors_picture([[Shown(wide, ["a"]), Shown(tall, []), Shown(wide, ["b"])], [Shown(tall, ["c"])]])
    step = BOX_HEIGHT + LINES * LINE + 2 * MARGIN
    assert (pixels.shape, pixels.dtype) == ((2 * step + MARGIN, 3 * (BOX_WIDTH + MARGIN) + MARGIN, 3), np.uint8)

    def box(row, column):
        y, x = MARGIN + row * step, MARGIN + column * (BOX_WIDTH + MARGIN)
        columns, below = slice(x, x + BOX_WIDTH), y + BOX_HEIGHT
        return pixels[y:below, columns], pixels[below:below + LINES * LINE, columns]

    middle = (BOX_HEIGHT // 2, BOX_WIDTH // 2)
    for row, column, color in ((0, 0, (0, 255, 0)), (0, 1, (255, 0, 255)), (0, 2, (0, 255, 0)), (1, 0, (255, 0, 255))):
        assert np.abs(box(row, column)[0][middle].astype(int) - color).max() < 3
    assert [box(0, column)[0][:3].max() < 50 for column in range(3)] == [True, False, False]
    assert [bool((box(*place)[1] < 100).any()) for place in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1))] == [
        True, False, True, True, False]


def test_photos_may_be_larger_than_pillow_takes_by_itself(monkeypatch):
    """As make_shards.py --max-pixels may have admitted them."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    photo = jpeg("red", (90, 60))
    assert neighbors_picture([[Shown(photo, [])]]).any() and thumbnail(photo, 20)


@pytest.mark.parametrize("words", ["W" * 300, "a\nb\tc", "Ω $x^2$ {0} ж ع 塔", ""])
def test_words_stay_below_their_photo(words):
    """A name may be anything; what runs over its photo is cut."""
    pixels = neighbors_picture([[Shown(jpeg("red"), [words] * 9), Shown(jpeg("red"), [])]])
    assert (pixels[MARGIN + BOX_HEIGHT:, MARGIN + BOX_WIDTH:] == 255).all() and (pixels[-MARGIN:] == 255).all()


def test_a_long_line_is_cut_as_late_as_may_be():
    font = ImageFont.truetype(FONT, 13)
    cut = _clipped("i" * 300, font)
    assert cut.endswith("i…") and font.getlength(cut) <= BOX_WIDTH < font.getlength(f"i{cut}")
    assert _clipped("short", font) == "short"


def test_no_query_is_refused():
    with pytest.raises(ValueError, match="there is no query to draw"):
        neighbors_picture([])


@pytest.mark.parametrize("name, expected", [
    ("http://commons.wikimedia.org/wiki/Category:Tour_de_Li%C3%A8ge", "Tour de Liège"),
    ("https://commons.wikimedia.org/wiki/Category:A/B_(C)", "A/B (C)"), ("Old Tower", "Old Tower"), ("", "")])
def test_a_category_is_told_in_words(name, expected):
    assert title(name) == expected


def inliers(*points):
    rows = np.array(points, np.float32).reshape(-1, 4)
    return Inliers(rows[:, :2], rows[:, 2:], np.eye(3) if len(rows) else None)


def test_a_line_joins_the_two_places_of_an_inlier():
    black = np.zeros((240, 320, 3), np.uint8)
    picture = match_picture(black, black, inliers((10, 119.5, 300, 119.5)))
    assert picture.shape == (PAIR_HEIGHT, 2 * 640 + PAIR_GAP, 3)
    rows, columns = np.nonzero(picture[:, :640].any(axis=2))  # the photo left, twice as large
    assert abs(rows.mean() - 239.5) < 1 and abs(columns.min() - 21) <= 5 and columns.max() == 639
    assert np.nonzero(picture[:, 640 + PAIR_GAP:].any(axis=2))[1].max() == pytest.approx(601, abs=5)


@pytest.mark.parametrize("shape", [(2, 8000), (8000, 2), (1, 1), (1, 65_500)])
def test_photos_of_any_shape_have_a_picture(shape):
    photo = np.full((*shape, 3), 90, np.uint8)
    picture = match_picture(photo, photo, inliers())
    assert picture.dtype == np.uint8 and picture.shape[0] == PAIR_HEIGHT
    assert picture.shape[1] <= 2 * PAIR_WIDTH + PAIR_GAP
    assert (picture == 90).any()
