"""demo_data.py: the plan of ids and classes, the warps, the odd files, the layout on disk, the answers to mistakes."""
import hashlib
import importlib.metadata
import io
import itertools
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from arcshard.console import UserError
from arcshard.files import folder_lock
from preprocess import demo_data
from preprocess.demo import views
from preprocess.demo.plan import (
    HTML,
    class_sizes,
    csv_files,
    encode,
    generator,
    landmark_ids,
    planted,
    query_photos,
    ranking,
    train_photos,
    unseen_photos,
)
from preprocess.demo.sources import FOREGROUND, LANDMARKS, NON_LANDMARKS, check_package
from preprocess.demo.views import write_photos

SCRIPT = "preprocess/demo_data.py"
SEEDS = st.integers(0, 2**40)


def odd_photos(seed: int) -> dict:
    return {photo.oddity: photo for photo in train_photos(seed) if photo.oddity}


def few_photos(seed: int) -> list:
    """Eight views of two landmarks, one of them with two source photos; a query of a landmark and three of none."""
    queries = query_photos(seed)
    return ([photo for photo in train_photos(seed) if photo.place in (ranking(seed)[-1], "castle_sign")][:8]
            + [photo for photo in queries if photo.place == "road"][:1]
            + [photo for photo in queries if photo.place == "tags"][:3]
            + unseen_photos(seed)[:1])


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- the plan

def test_sizes_follow_a_long_tail_that_the_filter_cuts():
    sizes = np.array(class_sizes())
    large, small = sizes[sizes >= 15], sizes[sizes < 15]
    assert 62 <= len(large) <= 70 and 15 <= len(small) <= 20 and len(sizes) == len(LANDMARKS)
    assert large.max() == 80 and large.min() == 15 and small.min() >= 2
    assert (np.diff(sizes) <= 0).all() and np.median(large) < large.mean()
    assert 1900 <= sizes.sum() <= 2200


@settings(max_examples=10)
@given(SEEDS)
def test_every_seed_makes_a_sound_plan(seed):
    train, queries, unseen = train_photos(seed), query_photos(seed), unseen_photos(seed)
    ids = [photo.id for photo in train + queries + unseen]
    assert len(set(ids)) == len(ids) and all(re.fullmatch("[0-9a-f]{16}", id) for id in ids)
    assert len(set(landmark_ids(seed).values())) == len(LANDMARKS)
    counts = pd.Series([photo.landmark_id for photo in train]).value_counts()
    assert sorted(counts) == sorted(class_sizes())
    assert not {(photo.place, photo.number) for photo in train} & {(photo.place, photo.number) for photo in queries}
    assert {photo.place for photo in train} == set(LANDMARKS)
    shown = pd.Series([counts.get(photo.landmark_id, 0) for photo in queries])
    assert len(queries) == 250 and (shown >= 15).sum() == 112 and (shown == 0).sum() == 125
    assert all((photo.landmark_id is None) == (photo.place in NON_LANDMARKS) for photo in queries)


@settings(max_examples=10)
@given(SEEDS)
def test_unseen_landmarks_are_those_that_training_leaves_out(seed):
    table = pd.read_csv(io.StringIO(csv_files(seed)["unseen.csv"]))
    counts = pd.Series([photo.landmark_id for photo in train_photos(seed)]).value_counts()
    gallery, queries = (table[table["split"] == split] for split in ("train", "test"))
    assert dict(gallery["landmark_id"].value_counts()) == dict(counts[counts < 15])
    assert dict(queries["landmark_id"].value_counts()) == dict.fromkeys(counts[counts < 15].index, 8)
    assert set(table["label"]) == set(range(16)) and table.groupby("landmark_id")["label"].nunique().eq(1).all()
    assert set(queries["id"]) == {photo.id for photo in unseen_photos(seed)}
    assert not set(queries["id"]) & {photo.id for photo in query_photos(seed)}


def test_other_seeds_share_no_id():
    assert not {photo.id for photo in train_photos(0)} & {photo.id for photo in train_photos(1)}


def test_source_regions_neither_overlap_nor_serve_two_ends():
    """Two places never show the same pixels; what is in front or no landmark is no place's photo."""
    regions = [(name, source) for name, sources in LANDMARKS.items() for source in sources]
    for (one, a), (other, b) in itertools.combinations(regions, 2):
        if one != other and a.file == b.file:
            left, top = max(a.box[0], b.box[0]), max(a.box[1], b.box[1])
            right, bottom = min(a.box[2], b.box[2]), min(a.box[3], b.box[3])
            assert left >= right or top >= bottom, (one, other)
    files = [{source.file for sources in places for source in sources}
             for places in (LANDMARKS.values(), NON_LANDMARKS.values(), [FOREGROUND])]
    assert not any(a & b for a, b in itertools.combinations(files, 2))


def test_csv_files_read_as_on_kaggle():
    texts = {name: pd.read_csv(io.StringIO(text), dtype=str, na_filter=False) for name, text in csv_files(0).items()}
    train, solution, sample = (texts[name] for name in ("train.csv", "test_solution.csv", "sample_submission.csv"))
    assert [list(t.columns) for t in (train, solution, sample)] == [
        ["id", "landmark_id"], ["id", "landmarks", "Usage"], ["id", "landmarks"]]
    assert list(zip(train["id"], train["landmark_id"])) == [(p.id, str(p.landmark_id)) for p in train_photos(0)]
    assert (solution["landmarks"] == "").sum() == 125 and set(solution["Usage"]) == {"Public", "Private"}
    assert solution["landmarks"].isin([*train["landmark_id"], ""]).all()
    assert list(sample["id"]) == list(solution["id"])
    assert sample["landmarks"].str.fullmatch(r"\d+ 0\.\d+").all()


# --- the views

@given(SEEDS, st.integers(50, 3000), st.integers(50, 3000))
def test_what_a_view_shows_lies_within_the_photo(seed, width, height):
    """And is a convex quadrilateral that goes round clockwise: never mirrored, never folded."""
    corners, size = views.draw_corners(np.random.default_rng(seed), width, height)
    assert (corners >= -1e-9).all() and (corners <= np.array([width, height]) + 1e-9).all()
    sides = np.roll(corners, -1, axis=0) - corners
    after = np.roll(sides, -1, axis=0)
    assert (sides[:, 0] * after[:, 1] - sides[:, 1] * after[:, 0] > 0).all()
    assert 0 < size.prod() <= 0.7 * width * height * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_warp_against_a_float64_homography(seed):
    """Each pixel of a view holds the place in the photo that the perspective map, solved for here, sends it to."""
    rng = np.random.default_rng(seed)
    corners, size = views.draw_corners(rng, 400, 300)
    width, height = (round(side) for side in size)
    photo = np.stack([*np.meshgrid(np.arange(400), np.arange(300)), np.zeros((300, 400))], axis=-1)
    view = views._cut(photo.astype(np.float32), corners, (width, height))
    rows, wanted = [], []
    for (u, v), (x, y) in zip([(0, 0), (width, 0), (width, height), (0, height)], corners):
        rows += [[u, v, 1, 0, 0, 0, -u * x, -v * x], [0, 0, 0, u, v, 1, -u * y, -v * y]]
        wanted += [x, y]
    a, b, c, d, e, f, g, h = np.linalg.solve(np.array(rows), wanted)
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    x, y = (a * u + b * v + c) / (g * u + h * v + 1), (d * u + e * v + f) / (g * u + h * v + 1)
    assert np.abs(view[..., 0] - x.clip(0, 399)).max() < 0.1 and np.abs(view[..., 1] - y.clip(0, 299)).max() < 0.1


@pytest.mark.parametrize("seed", range(10))
def test_views_have_no_border(seed, monkeypatch):
    """Of a photo of one color each view has one color, to its very edge."""
    monkeypatch.setattr(views, "FLOWER_BEDS", (1.0,))
    view = views.render_view(np.full((600, 800, 3), (90, 140, 180), np.uint8), np.random.default_rng(seed))
    assert (view == view[0, 0]).all() and view[0, 0].any()
    assert 500 <= max(view.shape) <= 800


@pytest.mark.parametrize("seed", range(5))
def test_flowers_hide_a_part_from_the_border_inwards(seed):
    rng = np.random.default_rng(seed)
    hidden = views._bush(rng, 800, 600)
    edge = np.concatenate([hidden[0], hidden[-1], hidden[:, 0], hidden[:, -1]])
    assert hidden.min() == 0 and edge.max() > 0.5 and 0.02 < hidden.mean() < 0.6
    view = np.zeros((600, 800, 3), np.uint8)
    shown = views.grow_flowers(view, np.random.default_rng(seed))
    assert shown.any() and not view.any() and (shown == 0).all(axis=-1).mean() > 0.3


# --- the files

@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> dict[str, Path]:
    """Path of each planted file, by kind."""
    out, photos = tmp_path_factory.mktemp("odd"), odd_photos(0)
    write_photos([photo for kind, photo in photos.items() if kind != "missing"], out, workers=1)
    return {kind: out / photo.path for kind, photo in photos.items()}


def plain(kind: str) -> np.ndarray:
    """The view that a planted file holds, as a plain JPEG would: RGB uint8."""
    photo = odd_photos(0)[kind]
    sources = [views.load_source(source) for source in LANDMARKS[photo.place]]
    view = views.render_view(sources[photo.number % len(sources)], generator(0, photo.place, photo.number))
    return np.asarray(Image.open(io.BytesIO(encode(view, 95))).convert("RGB"))


def test_planted_ids_are_rows_of_train_csv(odd):
    assert planted(0) == {kind: path.stem for kind, path in odd.items()}
    counts = pd.read_csv(io.StringIO(csv_files(0)["train.csv"])).set_index("id")["landmark_id"]
    assert len(set(counts[list(planted(0).values())])) == 10


def test_broken_files_are_broken(odd):
    assert odd["empty"].read_bytes() == b"" and odd["html"].read_bytes() == HTML and not odd["missing"].exists()
    with Image.open(odd["truncated"]) as image, pytest.raises(OSError, match="truncated"):
        image.load()


@pytest.mark.parametrize(("kind", "format", "mode"), [
    ("progressive", "JPEG", "RGB"), ("cmyk", "JPEG", "CMYK"), ("gray", "JPEG", "L"), ("exif_rotated", "JPEG", "RGB"),
    ("png16", "PNG", "I;16"), ("webp", "WEBP", "RGB")])
def test_odd_files_are_what_they_claim_and_show_the_view(odd, kind, format, mode):
    assert odd[kind].suffix == ".jpg"
    with Image.open(odd[kind]) as image:
        assert (image.format, image.mode) == (format, mode)
        assert bool(image.info.get("progressive")) == (kind == "progressive")
        assert image.getexif().get(0x0112, 1) == (6 if kind == "exif_rotated" else 1)
        wanted = plain(kind)
        assert image.size == (wanted.shape[1::-1] if kind != "exif_rotated" else wanted.shape[:2])
        upright = ImageOps.exif_transpose(image)
        pixels = np.asarray(upright) / 257 if kind == "png16" else np.asarray(upright.convert("L"))
    gray = np.asarray(Image.fromarray(wanted).convert("L"))
    assert np.abs(pixels - gray.astype(float)).mean() < 6  # levels; other pictures differ by dozens


def test_bytes_depend_on_the_seed_only(tmp_path):
    """One worker or two, all photos or some: the same files."""
    photos = few_photos(3)
    write_photos(photos, tmp_path / "one", workers=1)
    write_photos(photos[::-1], tmp_path / "two", workers=2)
    write_photos(photos[-2:], tmp_path / "some", workers=1)
    one = tree(tmp_path / "one")
    assert one == tree(tmp_path / "two") and tree(tmp_path / "some").items() <= one.items()
    assert set(one) == {photo.path for photo in photos}
    assert len({hashlib.sha256(data).digest() for data in one.values()}) == len(photos)


# --- the command

@pytest.fixture
def small(monkeypatch, tmp_path):
    """The command on a plan of few photos; call it to run it on tmp_path / photos."""
    photos = few_photos(0) + [odd_photos(0)["missing"]]
    monkeypatch.setattr(demo_data, "train_photos", lambda seed: [p for p in photos if p.split == "train"])
    monkeypatch.setattr(demo_data, "query_photos", lambda seed: [p for p in photos if p.split == "test"])
    monkeypatch.setattr(demo_data, "unseen_photos", lambda seed: [p for p in photos if p.split == "unseen"])
    out = tmp_path / "photos"
    monkeypatch.setattr(sys, "argv", [SCRIPT, "--out", str(out), "--workers", "1"])
    return out


def test_layout(small):
    demo_data.main()
    files = tree(small)
    assert {name for name in files if "/" not in name} == set(csv_files(0))
    photos = set(files) - set(csv_files(0))
    assert photos
    for name in photos:
        assert re.fullmatch(r"(train|test|unseen)/(\w)/(\w)/(\w)/\2\3\4\w{13}\.jpg", name)
        assert cv2.imdecode(np.frombuffer(files[name], np.uint8), cv2.IMREAD_COLOR).shape[2] == 3


def test_again_says_so_and_a_stopped_run_goes_on(small, capsys):
    """What a kill leaves (some photos, an unfinished one, no CSV) ends as the same files as an undisturbed run."""
    demo_data.main()
    whole = tree(small)
    capsys.readouterr()
    demo_data.main()
    assert "nothing to do" in capsys.readouterr().out and tree(small) == whole
    lost = next(small.glob("train/*/*/*/*.jpg"))
    lost.rename(f"{lost}.part")
    Path(f"{lost}.part").write_bytes(b"half")
    for name in csv_files(0):
        (small / name).unlink()
    demo_data.main()
    assert tree(small) == whole


def test_csv_files_appear_last(small, monkeypatch):
    monkeypatch.setattr(demo_data, "write_photos", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        demo_data.main()
    assert not tree(small.parent)
    assert list(csv_files(0))[-1] == "train.csv"


def test_two_at_once_and_a_full_disk_are_sentences(small, small_files):
    with small_files, pytest.raises(UserError, match=rf"no room left for {small}"):
        demo_data.main()
    assert not tree(small)
    with folder_lock(small), pytest.raises(UserError, match="is locked"):
        demo_data.main()


def test_another_seed_is_refused(call, refused, tmp_path):
    photo = tmp_path / train_photos(0)[0].path
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"")
    refused(call(SCRIPT, "--out", tmp_path, "--seed", "1"), "holds other photos than those of --seed 1")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/train.csv").write_text(csv_files(0)["train.csv"])
    refused(call(SCRIPT, "--out", tmp_path / "b", "--seed", "1"), "holds other photos than those of --seed 1")


def test_mistakes_get_one_sentence(call, refused, tmp_path):
    (tmp_path / "file").write_text("")
    refused(call(SCRIPT, "--out", tmp_path / "file"), "is a file: choose a folder for --out")
    refused(call(SCRIPT, "--out", tmp_path / "x", "--workers", "0"), "--workers is 0: give at least 1")
    refused(call(SCRIPT, "--out", tmp_path / "x", "--seed", "-1"), "--seed is -1: give at least 0")


def test_wrong_package_is_named(call, refused, tmp_path, monkeypatch):
    metadata = tmp_path / "mvtb_data-1.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: mvtb-data\nVersion: 1.0\n")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        done = call(SCRIPT, "--out", tmp_path / "x")
    refused(done, "(found: 1.0): run pip install 'arcshard[demo]'")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: (_ for _ in ()).throw(
        importlib.metadata.PackageNotFoundError(name)))
    with pytest.raises(UserError, match=r"\(found: none\): run pip install 'arcshard\[demo\]'"):
        check_package()
