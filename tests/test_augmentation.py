"""Framings, warps and colors: against arithmetic in plain loops, against DALI's own operators."""
import io
import itertools
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import simplejpeg
import torch
from hypothesis import given
from hypothesis import strategies as st
from nvidia.dali import fn, pipeline_def
from PIL import Image
from scipy.fft import dctn, idctn
from torchvision.transforms import functional

from loader import Loader, View, augment
from loader.augment import draw_boxes, draw_jitter, draw_qualities, whole_frames
from loader.draws import ImageChannel, uniform
from loader.pipeline import Resources, build_pipeline, finish_on_gpu, input_specs, inputs
from loader.plan import training_plan
from model.augment import autocontrast, cut_out, prepare
from shards import Dataset

THIRD = View(framing="squash", warp=0.7, rotate=10, scale=0.2, shift=0.2, shift_of="image", cutout=0.5, jpeg=(99, 100),
             jpeg_chance=0.5)
SECOND = View(framing="short-or-squash", randaugment=3)
SIDES = st.integers(1, 3000)


@pytest.fixture
def train(dataset_path):
    return Dataset(dataset_path, "train")  # 60 samples


def lengths(*values):
    return np.array(values, np.int32)


@given(SIDES, SIDES, st.sampled_from(["squash", "short", "long", "short-or-squash"]), st.floats(0.05, 1),
       st.integers(0, 10**6))
def test_frames_keep_their_share_and_lie_within_the_whole(width, height, framing, side, position):
    view = View(framing=framing, side=side)
    (x, y, w, h), = draw_boxes(view, 1, np.array([position]), lengths(width), lengths(height))
    wholes = [whole_frames(view, lengths(width), lengths(height), squash=squash)[0] for squash in (False, True)]
    whole, = [frame for frame in wholes[:1 if framing != "short-or-squash" else 2]
              if (w, h) == tuple(np.maximum(1, np.rint(frame[2:] * side)))][:1]
    assert whole[0] <= x and whole[1] <= y and x + w <= whole[0] + whole[2] and y + h <= whole[1] + whole[3]
    if framing in ("short", "long"):
        assert w == h
    if framing != "long":
        assert x >= 0 and y >= 0 and x + w <= width and y + h <= height


def test_whole_frames_of_a_landscape_photo():
    frames = {name: whole_frames(View(framing=name), lengths(40), lengths(20))[0].tolist()
              for name in ("crop", "squash", "short", "long", "short-or-squash")}
    assert frames == {"crop": [0, 0, 40, 20], "squash": [0, 0, 40, 20], "short": [10, 0, 20, 20],
                      "long": [0, -10, 40, 40], "short-or-squash": [10, 0, 20, 20]}


def test_places_are_uniform_and_the_coin_is_fair():
    positions, n = np.arange(4000), np.full(4000, 100, np.int32)
    boxes = draw_boxes(View(framing="short", side=0.5), 0, positions, n, n)
    for starts in boxes[:, :2].T:
        assert starts.min() == 0 and starts.max() == 50 and abs(starts.mean() - 25) < 1  # 4 standard errors
    mixed = draw_boxes(View(framing="short-or-squash"), 0, positions, n * 2, n)
    assert abs((mixed[:, 2] == 200).mean() - 0.5) < 0.04


def sampled_from_whole(photo, matrix, size):
    """Bilinear interpolation by its definition, float64, black outside: matrix maps the unit square to the photo."""
    height, width, _ = photo.shape
    image = np.zeros((size, size, 3))
    for row, column in itertools.product(range(size), repeat=2):
        x, y = matrix @ [(column + 0.5) / size, (row + 0.5) / size, 1] - 0.5
        for i, j in itertools.product((math.floor(y), math.floor(y) + 1), (math.floor(x), math.floor(x) + 1)):
            if 0 <= i < height and 0 <= j < width:
                image[row, column] += photo[i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
    return image


@pytest.mark.parametrize("view", [View(framing="long"), View(framing="long", side=0.7), THIRD, SECOND])
def test_pixels_equal_arithmetic_on_the_whole_photo(train, view):
    view = View(**{**vars(view), "jpeg": None, "flip": 0.0})
    loader = Loader(train, batch_size=12, size=24, seed=4, view=view)
    batch = next(iter(loader))
    rows, positions = train.index[batch.ids.numpy()], np.arange(12)
    boxes = draw_boxes(view, 4, positions, rows["width"], rows["height"])
    for image, sample, matrix in zip(batch.images.numpy(), batch.ids.tolist(),
                                     augment.draw_warps(view, 4, positions, boxes)):
        photo = np.asarray(Image.open(io.BytesIO(train.read(sample))).convert("RGB"), np.float64)
        error = np.abs(image - sampled_from_whole(photo, matrix, 24))
        assert error.mean() < 1 and error.max() < 24


@pytest.mark.parametrize("view", [View(), View(framing="short", side=0.8), View(framing="long"), THIRD, SECOND])
def test_the_nodes_of_the_gpu_graph_agree_with_the_cpu_path(train, view):
    """DALI's own operators, here those for the CPU: within two gray levels on average.

    Without JPEG, for which its operators differ: the CPU's interpolates chroma, the GPU's repeats it.
    """
    view = replace(view, jpeg=None)
    images = next(iter(Loader(train, batch_size=16, size=64, view=view))).images.numpy()
    ids = next(iter(Loader(train, batch_size=16, size=64, view=view))).ids.numpy()
    plan = training_plan(train.index[ids], view, 0, np.arange(16), ids, 16, 64, 0)
    specs = input_specs("gpu", view)
    batch = inputs(plan, [train.view(sample) for sample in ids], specs)

    @pipeline_def(batch_size=16, num_threads=2, device_id=None)
    def graph():
        given = dict(zip(specs, fn.external_source(lambda: batch, num_outputs=len(specs), batch=True,
                                                   ndim=[ndim for ndim, _ in specs.values()],
                                                   dtype=[dtype for _, dtype in specs.values()])))
        crops = fn.decoders.image_slice(given["encoded"], start=given["start"], shape=given["shape"],
                                        adjust_orientation=False)
        return finish_on_gpu(crops, given)

    theirs = graph()
    theirs.build()
    theirs, = theirs.run()
    errors = np.abs(np.stack([np.asarray(image) for image in theirs]).astype(float) - images)
    assert errors.mean((1, 2, 3)).max() < 2, errors.mean((1, 2, 3))


def test_the_gpu_graph_warps_and_compresses_on_the_gpu():
    graph = build_pipeline(lambda: None, Resources("gpu", 8, 2), THIRD).serialize()
    for operator in (b"WarpAffine", b"JpegCompressionDistortion"):
        start = graph.index(operator)
        assert b"gpu" in graph[start:start + 400], operator
    assert b"WarpAffine" not in build_pipeline(lambda: None, Resources("gpu", 8, 2), View()).serialize()


@given(st.floats(0, 180), st.floats(0, 0.9), st.floats(0, 1), SIDES, SIDES)
def test_what_is_decoded_covers_what_is_touched(rotate, scale, shift, width, height):
    view, positions = View(framing="squash", rotate=rotate, scale=scale, shift=shift), np.arange(50)
    w, h = np.full(50, width, np.int32), np.full(50, height, np.int32)
    matrices = augment.draw_warps(view, 0, positions, draw_boxes(view, 0, positions, w, h))
    regions = augment.decoded_boxes(matrices, w, h)
    assert np.all(regions[:, 2:] >= 1) and np.all(regions[:, :2] >= 0)
    assert np.all(regions[:, 0] + regions[:, 2] <= width) and np.all(regions[:, 1] + regions[:, 3] <= height)
    points = np.random.default_rng(0).uniform(size=(100, 2))
    touched = matrices[:, :, :2] @ points.T + matrices[:, :, 2:]  # (n, 2, points)
    inside = np.all((touched > 0) & (touched < np.array([[width], [height]])), axis=1)
    start, end = regions[:, :2, None], (regions[:, :2] + regions[:, 2:])[:, :, None]
    assert np.all(np.all((touched >= start) & (touched <= end), axis=1)[inside])


def test_warps_turn_enlarge_and_shift_within_their_limits():
    view, positions = View(framing="squash", warp=0.7, rotate=10, scale=0.2, shift=0.1), np.arange(4000)
    boxes = np.tile([100.0, 50, 40, 20], (4000, 1))
    matrices = augment.draw_warps(view, 0, positions, boxes)
    unit = matrices[:, :, :2] / [40, 20]
    angles, enlarged = np.rad2deg(np.arctan2(unit[:, 1, 0], unit[:, 0, 0])), 1 / np.hypot(unit[:, 0, 0], unit[:, 1, 0])
    still = np.isclose(angles, 0)
    assert abs(still.mean() - 0.3) < 0.03 and np.allclose(matrices[still], augment.box_matrices(boxes)[still])
    assert 9.8 < np.abs(angles).max() <= 10 and 0.8 <= enlarged.min() < 0.81 and 1.19 < enlarged.max() <= 1.2
    centers = (matrices @ [0.5, 0.5, 1] - [120, 60]) / [40, 20]
    assert 0.098 < np.abs(centers).max() <= 0.1 + 1e-9


def test_a_shift_of_the_image_comes_after_scale_and_rotation():
    """Albumentations' ShiftScaleRotate: OpenCV's rotation matrix, then shares of the sides added to its offset."""
    view, positions = View(framing="squash", rotate=10, scale=0.2, shift=0.2, shift_of="image"), np.arange(2000)
    matrices = augment.draw_warps(view, 0, positions, np.tile([0.0, 0, 40, 20], (2000, 1)))
    _, angle, scale, x, y = 2 * uniform(0, positions[:, None], ImageChannel.WARP + np.arange(5)).T - 1
    centers = np.zeros((2000, 2))
    for i, matrix in enumerate(matrices):
        to_image = cv2.getRotationMatrix2D((20.0, 10.0), 10 * angle[i], 1 + 0.2 * scale[i])
        to_image[:, 2] -= 0.2 * x[i] * 40, 0.2 * y[i] * 20
        assert np.allclose(cv2.invertAffineTransform(to_image), matrix / [40, 20, 1], atol=1e-6)
        centers[i] = (to_image @ [20, 10, 1] - [20, 10]) / [40, 20]
    assert 0.19 < np.abs(centers).max() <= 0.2


def test_a_share_of_the_images_is_compressed_and_the_qualities_stay_those_of_all():
    positions = np.arange(4000)
    half, every = (draw_qualities(View(jpeg=(20, 40), jpeg_chance=p), 0, positions) for p in (0.5, 1.0))
    assert abs((half > 0).mean() - 0.5) < 0.03 and np.array_equal(half[half > 0], every[half > 0])
    assert every.min() == 20 and not draw_qualities(View(jpeg=(20, 40), jpeg_chance=0.0), 0, positions).any()


def test_the_gpu_graph_compresses_only_the_images_drawn():
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    compress = np.array([True, False, True, False])
    given = {"size": [16.0, 16.0], "flip": 0}

    @pipeline_def(batch_size=4, num_threads=1, device_id=None)
    def graph():
        data, marks = fn.external_source(lambda: (images, compress), num_outputs=2, batch=True)
        return finish_on_gpu(data, {**given, "quality": 20, "compress": marks})

    pipe = graph()
    pipe.build()
    found, = pipe.run()
    equal = [np.array_equal(np.asarray(image), original) for image, original in zip(found, images)]
    assert equal == [False, True, False, True]


def test_randaugment_equals_a_loop_over_its_operations():
    number, seed = 3, 7
    drawn = augment.draw_operations(number, seed, np.arange(200))
    seen = set()
    for position in range(200):
        angle, shear, shift, factors, hole, full = 0.0, [0, 0], [0, 0], [1.0, 1, 1], 0.0, False
        for k in range(number):
            u = [float(uniform(seed, position, ImageChannel.RANDAUGMENT + which * number + k)[0]) for which in range(3)]
            name, m = augment.OPERATIONS[int(u[0] * 11)], (1 + int(9 * u[1])) / 10
            sign = -1 if u[2] < 0.5 else 1
            seen.add(name)
            if name == "rotate":
                angle += sign * 20 * m
            elif name in ("shear x", "shear y"):
                shear["xy".index(name[-1])] += sign * 0.1 * m
            elif name in ("shift x", "shift y"):
                shift["xy".index(name[-1])] += sign * 0.25 * m
            elif name == "brightness":
                factors[0] *= 0.5 + m
            elif name in ("contrast", "saturation"):
                factors[1 if name == "contrast" else 2] *= 2 * m
            elif name == "cutout":
                hole = max(hole, 0.5 * m)
            full = full or name == "autocontrast"
        assert np.allclose(drawn.angle[position], angle) and np.allclose(drawn.shear[position], shear)
        assert np.allclose(drawn.shift[position], shift) and np.allclose(drawn.factors[position], factors)
        assert np.isclose(drawn.hole[position], hole) and drawn.autocontrast[position] == full
    assert seen == set(augment.OPERATIONS)


def test_holes_have_their_side_unless_the_border_cuts_them():
    jitter = draw_jitter(View(cutout=0.5, cutout_side=0.4), 0, np.arange(4000))
    assert jitter.shape == (4000, 8) and np.all(jitter[:, :3] == 1) and not jitter[:, 7].any()
    left, top, right, bottom = jitter[:, 3:7].T
    has = right > left
    assert abs(has.mean() - 0.5) < 0.03 and not jitter[~has, 3:7].any()
    chance, x, _ = uniform(0, np.arange(4000)[:, None], ImageChannel.CUTOUT + np.arange(3)).T
    assert np.array_equal(has, chance < 0.5) and np.all((left <= x) & (x <= right) | ~has)
    inner = has & (left > 0) & (right < 1)
    assert np.allclose((right - left)[inner], 0.4) and (right - left)[has].min() >= 0.2 - 1e-6


def test_cut_out_blackens_the_pixels_whose_centers_lie_inside():
    x = torch.rand(2, 3, 10, 10) + 0.1
    holed = cut_out(x, torch.tensor([[0.26, 0.0, 0.5, 0.36], [0, 0, 0, 0]]))
    expected = x.clone()
    expected[0, :, 0:4, 3:5] = 0  # rows with centers 0.05 to 0.35, columns 0.35 and 0.45
    assert torch.equal(holed, expected)


def test_autocontrast_equals_torchvision():
    x = torch.rand(4, 3, 8, 8) * 0.5 + 0.2
    x[1, 2] = 0.3  # one value: stays
    assert torch.allclose(autocontrast(x), functional.autocontrast(x), atol=1e-6)


def test_prepare_follows_the_columns_sample_by_sample():
    images = torch.randint(50, 200, (2, 8, 8, 3), dtype=torch.uint8)
    plain = torch.tensor([[1.0, 1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 1, 1, 1]])
    first, second = prepare(images, plain, torch.zeros(3), torch.ones(3))
    assert torch.allclose(first, images[0].permute(2, 0, 1) / 255, atol=1e-6) and not second.any()
    stretched = prepare(images, torch.tensor([[1.0, 1, 1, 0, 0, 0, 0, 1]] * 2), torch.zeros(3), torch.ones(3))
    assert torch.allclose(stretched, functional.autocontrast(images.permute(0, 3, 1, 2) / 255), atol=1e-6)


def test_images_are_compressed_with_the_quality_drawn(train):
    view = View(jpeg=(20, 40), flip=0.0)
    qualities = draw_qualities(view, 0, np.arange(3000))
    assert (qualities.min(), qualities.max()) == (20, 40) and abs(qualities.mean() - 30) < 0.5
    compressed = next(iter(Loader(train, batch_size=8, size=48, view=view))).images.numpy()
    before = next(iter(Loader(train, batch_size=8, size=48, view=View(flip=0.0)))).images.numpy()
    for image, original, quality in zip(compressed, before, qualities):
        _, data = cv2.imencode(".jpg", cv2.cvtColor(original, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert np.array_equal(image, simplejpeg.decode_jpeg(data, fastupsample=True))
        ours, interpolated = (np.abs(decoded - compressed_as_dali_does(original, quality)).mean()
                              for decoded in (image, simplejpeg.decode_jpeg(data)))
        assert ours < 2 and 2 * ours < interpolated, "rounding to few steps alone takes up to 1.7 at these qualities"
        assert not np.array_equal(image, original)


def compressed_as_dali_does(image, quality):
    """JPEG's loss in float64, by its definition, with chroma as DALI's kernel for the GPU treats it: means over 2 × 2
    pixels, repeated afterwards. image: uint8 (h, w, 3), sides multiples of 16; returns float64."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=int(quality))
    luma, chroma = (np.reshape(table, (8, 8)) for table in Image.open(file).quantization.values())
    to_ycc = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])

    def lossy(plane, table):
        h, w = plane.shape
        blocks = plane.reshape(h // 8, 8, w // 8, 8).swapaxes(1, 2)
        coded = np.rint(dctn(blocks, axes=(2, 3), norm="ortho") / table) * table
        return idctn(coded, axes=(2, 3), norm="ortho").swapaxes(1, 2).reshape(h, w)

    y, *colors = (image @ to_ycc.T).transpose(2, 0, 1)
    halved = [c.reshape(c.shape[0] // 2, 2, c.shape[1] // 2, 2).mean((1, 3)) for c in colors]
    whole = [lossy(c, chroma).repeat(2, 0).repeat(2, 1) for c in halved]
    return np.clip(np.stack([lossy(y - 128, luma) + 128, *whole], 2) @ np.linalg.inv(to_ycc).T, 0, 255)


@pytest.mark.parametrize("view", [THIRD, SECOND])
def test_any_number_of_ranks_and_threads_gives_the_same_views(train, view):
    whole = next(iter(Loader(train, batch_size=12, size=32, view=view, num_threads=2)))
    for rank in range(3):
        part = next(iter(Loader(train, batch_size=4, size=32, view=view, rank=rank, world_size=3, num_threads=1)))
        for field in ("images", "jitter", "ids"):
            assert torch.equal(getattr(part, field), getattr(whole, field)[4 * rank:][:4])


@pytest.mark.parametrize("view", [THIRD, SECOND])
def test_evaluation_draws_nothing(train, view):
    """Not even a warp that does nothing, nor JPEG of quality 0, which DALI on a GPU would take at its word."""
    loader = Loader(train, batch_size=60, size=40, train=False, view=view)
    assert loader.view == View(framing=view.framing) and not loader.view.warps
    batch, plain = (next(iter(each)) for each in (loader, Loader(train, batch_size=60, size=40, train=False,
                                                                 view=View(framing=view.framing))))
    assert torch.equal(batch.images, plain.images) and torch.equal(batch.jitter, torch.ones(60, 3))


def test_evaluation_takes_the_whole_frame(train):
    batch = next(iter(Loader(train, batch_size=4, size=40, train=False, view=View(framing="long"))))
    for image, row in zip(batch.images.numpy(), train.index[:4]):
        wide, high = row["width"] / max(row["width"], row["height"]), row["height"] / max(row["width"], row["height"])
        dark = image.max(2) == 0
        band = int(40 * (1 - min(wide, high)) / 2) - 1
        assert band < 1 or (dark[:band].all() if high < wide else dark[:, :band].all())
        assert not dark[20, 20]
