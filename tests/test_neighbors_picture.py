"""The picture of queries and their neighbors, and what people call a landmark."""
import numpy as np
import pytest
from PIL import ImageFont

from retrieval.neighbors_picture import FONT, GAP, HEIGHT, LINE, LINES, WIDTH, Shown, _clipped, neighbors_picture
from retrieval.run.gallery import title
from tests.test_report_page import jpeg


def test_each_photo_has_its_place_and_words_below():
    """Two queries of two and no neighbors: a frame around the first, photos in the middle of their boxes."""
    wide, tall = jpeg("lime", (400, 100)), jpeg("magenta", (30, 600))
    pixels = neighbors_picture([[Shown(wide, ["a"]), Shown(tall, []), Shown(wide, ["b"])], [Shown(tall, ["c"])]])
    step = HEIGHT + LINES * LINE + 2 * GAP
    assert (pixels.shape, pixels.dtype) == ((2 * step + GAP, 3 * (WIDTH + GAP) + GAP, 3), np.uint8)

    def box(row, column):
        y, x = GAP + row * step, GAP + column * (WIDTH + GAP)
        return pixels[y:y + HEIGHT, x:x + WIDTH], pixels[y + HEIGHT:y + HEIGHT + LINES * LINE, x:x + WIDTH]

    middle = (HEIGHT // 2, WIDTH // 2)
    for row, column, color in ((0, 0, (0, 255, 0)), (0, 1, (255, 0, 255)), (0, 2, (0, 255, 0)), (1, 0, (255, 0, 255))):
        assert np.abs(box(row, column)[0][middle].astype(int) - color).max() < 3
    assert [box(0, column)[0][:3].max() < 50 for column in range(3)] == [True, False, False]
    assert [bool((box(*place)[1] < 100).any()) for place in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1))] == [
        True, False, True, True, False]


@pytest.mark.parametrize("words", ["W" * 300, "a\nb\tc", "Ω $x^2$ {0} ж ع 塔", ""])
def test_words_stay_below_their_photo(words):
    """A name may be anything; what runs over its photo is cut."""
    pixels = neighbors_picture([[Shown(jpeg("red"), [words] * 9), Shown(jpeg("red"), [])]])
    assert (pixels[GAP + HEIGHT:, GAP + WIDTH:] == 255).all() and (pixels[-GAP:] == 255).all()


def test_a_long_line_is_cut_as_late_as_may_be():
    font = ImageFont.truetype(FONT, 13)
    cut = _clipped("i" * 300, font)
    assert cut.endswith("i…") and font.getlength(cut) <= WIDTH < font.getlength(f"i{cut}")
    assert _clipped("short", font) == "short"


def test_no_query_is_refused():
    with pytest.raises(ValueError, match="a picture shows queries, and there is none"):
        neighbors_picture([])


@pytest.mark.parametrize("name, expected", [
    ("http://commons.wikimedia.org/wiki/Category:Tour_de_Li%C3%A8ge", "Tour de Liège"),
    ("https://commons.wikimedia.org/wiki/Category:A/B_(C)", "A/B (C)"), ("Old Tower", "Old Tower"), ("", "")])
def test_a_category_is_told_in_words(name, expected):
    assert title(name) == expected
