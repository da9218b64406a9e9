"""Predictor: photos of any kind, seen as if they had been packed."""
import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image

import arcshard
from arcshard.console import UserError
from loader import Loader, View
from loader.frames import frame
from preprocess.engine import Engine
from preprocess.packing.options import PackOptions
from preprocess.packing.pack import pack
from retrieval.run import unpacked
from retrieval.run.embed import embed_split
from retrieval.run.model import Tta, load_model
from retrieval.run.predictor import Predictor
from retrieval.run.unpacked import UnpackedPhotos, embed_photos
from shards import Dataset
from tests.pictures import encoded, normal_jpeg, scene, with_orientation
from tests.random_run import save_random_run

PACKING = {"short_side": 96, "quality": 80, "max_pixels": 10**6}
FILES = {"normal": normal_jpeg(130, 96), "large": normal_jpeg(301, 224), "turned": with_orientation(6, 150, 110),
         "progressive": normal_jpeg(130, 90, progressive=True), "png": encoded(scene(140, 133), "PNG"),
         "gray": encoded(scene(97, 250).convert("L")), "tall": normal_jpeg(41, 180)}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The files of every kind, packed."""
    folder = tmp_path_factory.mktemp("kinds")
    for name, data in FILES.items():
        (folder / f"{name}.jpg").write_bytes(data)
    samples = pd.DataFrame({"id": [*FILES], "landmark_id": "1", "label": 0, "split": "train"})
    pack(samples, [folder], folder / "dataset", PackOptions(**PACKING), Engine())
    return Dataset(folder / "dataset")


@pytest.mark.parametrize("view", [View(), View(framing="short", side=0.8), View(framing="long", side=0.9)],
                         ids=lambda view: view.framing)
def test_a_photo_is_seen_as_if_it_had_been_packed(packed, view):
    """Bit for bit, whatever had to be done to bring it into normal form."""
    photos = UnpackedPhotos([*FILES.values()], PACKING)
    shown = {name: frame(photos.read(i), view, 64) for i, name in enumerate(FILES)}
    batch = next(iter(Loader(packed, batch_size=len(FILES), size=64, train=False, view=view)))
    for i, image in zip(batch.ids.tolist(), batch.images.numpy()):
        assert_array_equal(shown[packed.index["key"][i].decode()], image)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return save_random_run(tmp_path_factory.mktemp("run"), classes=6)


@pytest.fixture(scope="module")
def predictor(run_folder, dataset_path):
    return arcshard.Predictor(run_folder, dataset_path)


@pytest.mark.parametrize("tta", [Tta(), Tta(True, (1.25,))], ids=str)
def test_a_folder_is_embedded_as_its_dataset(run_folder, packed, monkeypatch, tta):
    """Batches and bad photos between good ones move nothing."""
    monkeypatch.setattr(unpacked, "BATCH", 3)
    monkeypatch.setattr(unpacked, "AHEAD", 2)
    model = load_model(run_folder, tta=tta)
    vectors, reasons = embed_photos(model, UnpackedPhotos([b"", *FILES.values(), b"no photo"], PACKING))
    assert reasons[0] == "empty file" and "not an image" in reasons[-1] and reasons[1:-1] == [None] * len(FILES)
    assert not vectors[[0, -1]].any()
    expected = embed_split(model, packed, None)
    rows = [expected.keys.index(name) for name in FILES]
    np.testing.assert_allclose(vectors[1:-1], expected.vectors[rows], atol=1e-6)


def test_every_kind_of_photo_is_taken(predictor, photos, tmp_path):
    path = photos[0] / "c3test.jpg"
    data = path.read_bytes()
    image = Image.open(io.BytesIO(data))
    same = predictor.embed([path, str(path), data, path.as_uri()])
    assert (same.shape, same.dtype) == ((4, 32), np.float32)
    assert_array_equal(same, same[[0] * 4])
    np.testing.assert_allclose(np.linalg.norm(same, axis=1), 1, atol=1e-6)
    pixels = predictor.embed([image, np.asarray(image), encoded(image, "PNG")])
    assert_array_equal(pixels, pixels[[0] * 3])
    np.testing.assert_allclose(predictor.embed(with_orientation(6)),
                               predictor.embed(Image.open(io.BytesIO(with_orientation(6)))), atol=0.05)


def test_an_answer_says_what_the_photo_shows_and_why(predictor, photos, dataset_path):
    gallery = Dataset(dataset_path, "train")
    answers = predictor([photos[0] / "c1test.jpg", b"no photo", gallery.read(5)])
    alone = predictor(photos[0] / "c1test.jpg")
    assert answers[0].landmark == alone.landmark and answers[0].score == pytest.approx(alone.score, rel=1e-4)
    assert answers[1].landmark is None and "not an image" in answers[1].unreadable and not answers[1].neighbors
    nearest = answers[2].neighbors[0]
    assert nearest.row == 5 and nearest.id == gallery.index["key"][5].decode()
    assert nearest.landmark == gallery.landmark_ids[gallery.labels[5]] and nearest.similarity == pytest.approx(1)
    best = answers[2].candidates[0]
    assert (answers[2].landmark, answers[2].name, answers[2].score) == (best.landmark, best.name, best.score)


def test_threads_get_the_answers_of_one(predictor, photos):
    paths = sorted(photos[0].glob("c*test.jpg"))
    alone = [predictor(path) for path in paths]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(predictor, paths * 4)) == alone * 4


@pytest.mark.parametrize("photo, error, words", [
    ("none.jpg", FileNotFoundError, "none.jpg"), ("file:///none.jpg", UserError, "there is no file:///none.jpg"),
    (np.zeros((4, 4)), ValueError, r"float64 \(4, 4\): give uint8"), (b"no photo", UserError, "photo 0 of 1")])
def test_what_cannot_be_read_is_said(predictor, photo, error, words):
    with pytest.raises(error, match=words):
        predictor.embed(photo)


@pytest.mark.parametrize("options, words", [({"size": 0}, "size is 0"), ({"pipeline": "none.yaml"}, "none.yaml"),
                                            ({"device": "cuda"}, "no CUDA device")])
def test_wrong_options_are_refused(run_folder, dataset_path, options, words):
    if "device" in options and torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises((UserError, FileNotFoundError), match=words):
        Predictor(run_folder, dataset_path, **options)


def test_arcshard_imports_no_room_before_it_is_asked():
    """Every room imports arcshard, and packing workers must not load torch."""
    code = "import arcshard, sys; print({'torch', 'retrieval'} & {*sys.modules}, hasattr(arcshard, 'Nobody'))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set() False\n"
    assert arcshard.Predictor is Predictor
