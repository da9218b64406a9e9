import math

import numpy as np
import pandas as pd
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from loader import Loader
from loader.augment import TRIES, View, central_boxes, draw_crops, draw_flips, draw_jitter
from loader.draws import ImageChannel, uniform
from preprocess.engine import Engine
from preprocess.packing.options import PackOptions
from preprocess.packing.pack import pack
from shards import Dataset


def crop_of_torchvision(view, seed, position, width, height):
    """RandomResizedCrop.get_params step by step, on the same random numbers: the loop that draw_crops vectorizes."""
    u = uniform(seed, position, ImageChannel.CROP + np.arange(4 * TRIES)).reshape(4, TRIES)
    for t in range(TRIES):
        area = (view.area[0] + u[0, t] * (view.area[1] - view.area[0])) * width * height
        low, high = math.log(view.aspect[0]), math.log(view.aspect[1])
        aspect = math.exp(low + u[1, t] * (high - low))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return [int(u[2, t] * (width - w + 1)), int(u[3, t] * (height - h + 1)), w, h]
    w = min(width, max(1, round(height * view.aspect[1])))
    h = min(height, max(1, round(width / view.aspect[0])))
    return [(width - w) // 2, (height - h) // 2, w, h]


sizes = st.integers(1, 2000)


@given(sizes, sizes, st.integers(0, 10**12), st.integers(0, 2**32))
def test_crops_equal_the_plain_loop_and_lie_inside_the_photo(width, height, position, seed):
    view = View()
    box = draw_crops(view, seed, np.array([position]), np.array([width], np.int32), np.array([height], np.int32))[0]
    assert box.tolist() == crop_of_torchvision(view, seed, position, width, height)
    x, y, w, h = box.tolist()
    assert x >= 0 and y >= 0 and w >= 1 and h >= 1 and x + w <= width and y + h <= height


def test_crops_have_the_promised_areas_aspects_and_places():
    n = 20_000
    side = np.full(n, 1000, np.int32)
    boxes = draw_crops(View(area=(0.1, 0.5)), 0, np.arange(n), side, side)
    x, _, w, h = boxes.T
    area, aspect = w * h / 1e6, w / h
    assert area.min() > 0.099 and area.max() < 0.501
    assert abs(area.mean() - 0.3) < 0.005 and abs(np.log(aspect).mean()) < 0.01
    assert abs((x / (1001 - w)).mean() - 0.5) < 0.01


def test_flips_follow_their_probability():
    positions = np.arange(20_000)
    assert abs(draw_flips(View(flip=0.3), 0, positions).mean() - 0.3) < 0.02
    assert not draw_flips(View(flip=0.0), 0, positions).any() and draw_flips(View(flip=1.0), 0, positions).all()


def test_jitter_lies_in_its_range_and_is_one_where_not_asked():
    factors = draw_jitter(View(brightness=0.2, saturation=0.5), 0, np.arange(5000))
    assert factors.dtype == np.float32 and (factors[:, 1] == 1).all()
    assert 0.8 <= factors[:, 0].min() < 0.81 and 1.19 < factors[:, 0].max() <= 1.2
    assert 0.5 <= factors[:, 2].min() < 0.51 and 1.49 < factors[:, 2].max() <= 1.5


def test_another_augmentation_does_not_shift_the_crops():
    """Each use of randomness has its own channel."""
    size, positions = np.full(50, 300, np.int32), np.arange(50)
    assert np.array_equal(draw_crops(View(), 0, positions, size, size),
                          draw_crops(View(flip=0.1, brightness=0.5), 0, positions, size, size))


def test_views_of_a_sample_differ_between_epochs_and_seeds():
    size = np.full(1, 500, np.int32)
    boxes = {tuple(draw_crops(View(), seed, np.array([p]), size, size)[0]) for seed in (0, 1) for p in (3, 103, 203)}
    assert len(boxes) == 6


def test_evaluation_sees_the_whole_photo():
    boxes = central_boxes(View().in_evaluation(), np.array([30, 7], np.int32), np.array([20, 9], np.int32))
    assert boxes.tolist() == [[0, 0, 30, 20], [0, 0, 7, 9]]


@pytest.fixture(scope="module")
def square(tmp_path_factory):
    """A photo of 512 × 400 pixels with a white square of 80 in its middle, packed."""
    folder = tmp_path_factory.mktemp("square")
    photo = np.zeros((400, 512, 3), np.uint8)
    photo[160:240, 216:296] = 255
    (folder / "a.jpg").write_bytes(simplejpeg.encode_jpeg(photo, 95))
    samples = pd.DataFrame({"id": ["a"], "landmark_id": ["1"], "label": [0], "split": ["train"]})
    pack(samples, [folder], folder / "dataset", PackOptions(), Engine())
    return Dataset(folder / "dataset")


def seen(view, dataset, size, train):
    """Side of the square in pixels, from its area."""
    images = next(iter(Loader(dataset, batch_size=1, size=size, train=train, view=view))).images
    return math.sqrt(images[0, ..., 0].double().sum() / 255)


@pytest.mark.parametrize("framing, share", [("short", 80 / 400), ("long", 80 / 512)])
def test_evaluation_shows_objects_at_the_scale_of_training(square, framing, share):
    view = View(framing=framing, side=0.875, flip=0)
    trained = seen(view, square, 224, train=True)
    assert trained == pytest.approx(share * 224 / 0.875, rel=0.01)
    assert seen(view, square, 224, train=False) == pytest.approx(trained, rel=0.01)
    for size, enlarged in ((112, 0.5), (240, 1), (256, 1), (320, 1.25)):  # at 256 = 224 / 0.875 the frame is whole
        shown = view.in_evaluation(size / 224)
        assert shown.side == pytest.approx(min(1, 0.875 * max(1, size / 224)))
        assert seen(shown, square, size, train=False) == pytest.approx(enlarged * trained, rel=0.02)


def test_evaluation_keeps_the_center():
    """Of 300 × 200 pixels: the center of the short side's square, that of the long side's, which has black, or all."""
    boxes = {framing: central_boxes(View(framing=framing, side=0.9).in_evaluation(),
                                      *np.array([[300], [200]], np.int32))
             for framing in ("short", "long", "squash", "crop")}
    assert {framing: box.tolist() for framing, box in boxes.items()} == {
        "short": [[60, 10, 180, 180]], "long": [[15, -35, 270, 270]], "squash": [[15, 10, 270, 180]],
        "crop": [[0, 0, 300, 200]]}


@pytest.mark.parametrize("wrong, sentence", [
    ({"area": (0.5, 0.2)}, r"view.area is \(0.5, 0.2\): give two rising shares"),
    ({"area": (0.0, 1.0)}, "view.area is .*: give two rising shares"),
    ({"aspect": (2.0, 1.0)}, "view.aspect is .*: give two rising ratios"),
    ({"flip": 1.5}, "view.flip is 1.5: give 0 to 1"),
    ({"contrast": -0.1}, "view.contrast is -0.1: give 0 to 1"),
])
def test_impossible_views_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        View(**wrong)
