"""duplicates.py: which pairs are found, what the report says, what --drop leaves, and the answer to each mistake."""
import base64
import errno
import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from arcshard.console import UserError
from arcshard.files import folder_lock
from pages import duplicates as duplicates_page
from preprocess import duplicates as duplicates_command
from preprocess.dedup import hashes
from preprocess.dedup import pairs as dedup_pairs
from preprocess.dedup.hashes import RECORD_DTYPE, HashedPhotos, hash_photo, hash_photos, photo_keys
from preprocess.dedup.pairs import TooManyPairs, find_duplicates
from preprocess.dedup.report import failures, summary, thin, write_report
from preprocess.duplicates import compare
from preprocess.engine import Engine
from preprocess.images.decode import Rejected
from preprocess.samples.sample_table import class_ids, read_samples

ROOT = Path(__file__).parents[1]
SCRIPT = "preprocess/duplicates.py"
HEADER = "id_a,split_a,landmark_a,id_b,split_b,landmark_b,kind,distance"


# ---- pairs of hashes

@st.composite
def clustered_hashes(draw):
    """Up to 40 hashes, most a few bits away from others: far from uniform, as photos are."""
    centers = draw(st.lists(st.integers(0, 2 ** 64 - 1), min_size=1, max_size=4))
    flips = draw(st.lists(st.tuples(st.sampled_from(centers), st.sets(st.integers(0, 63), max_size=9)), max_size=40))
    return np.array([center ^ sum(1 << bit for bit in bits) for center, bits in flips], np.uint64)


@given(a=clustered_hashes(), b=clustered_hashes(), shared=st.integers(0, 10), distance=st.integers(0, 12))
def test_near_pairs_finds_what_comparing_each_with_each_finds(a, b, shared, distance):
    b = np.concatenate([b, a[:shared]])
    found = dedup_pairs.near_pairs(a, b, distance)
    distances = np.bitwise_count(a[:, None] ^ b[None])
    expected = [(i, j, distances[i, j]) for i, j in np.argwhere(distances <= distance)]
    assert sorted(zip(found.a, found.b, found.distance)) == expected


@pytest.mark.parametrize("distance", range(13))
def test_differences_spread_over_all_bits_are_found(distance):
    """A bit in each of `distance` equal parts, wherever those begin: one band fewer would miss some."""
    spread = [sum(1 << (64 * part // distance + shift) % 64 for part in range(distance)) for shift in range(16)]
    base = 0x0123456789ABCDEF
    found = dedup_pairs.near_pairs(np.array([base], np.uint64), np.array([base ^ bits for bits in spread], np.uint64),
                                  distance)
    assert sorted(found.b.tolist()) == list(range(16)) and set(found.distance.tolist()) == {distance}


def test_a_bucket_larger_than_a_block_is_compared_whole(monkeypatch):
    a = np.arange(100, dtype=np.uint64)  # all in one bucket of the upper bands
    whole = dedup_pairs.near_pairs(a, a[:7], 3)
    monkeypatch.setattr(dedup_pairs, "BLOCK", 20)
    assert sorted(zip(*dedup_pairs.near_pairs(a, a[:7], 3))) == sorted(zip(*whole))
    assert len(whole.a) == (np.bitwise_count(a[:, None] ^ a[None, :7]) <= 3).sum()


def test_too_many_pairs_are_refused_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr(dedup_pairs, "MAX_PAIRS", 99)
    same = np.zeros(10, np.uint64)
    with pytest.raises(TooManyPairs):
        dedup_pairs.near_pairs(same, same, 0)
    assert len(dedup_pairs.near_pairs(same[:9], same, 0).a) == 90


# ---- pairs of photos

@st.composite
def hashed_tables(draw):
    """Records of up to 24 photos with few different hashes, equal files with equal looks, and their splits."""
    contents = draw(st.lists(st.integers(0, 7), max_size=24))
    looks = [0, 0, 0, 0b11, 0b11, 0b111111, 2 ** 63, 2 ** 64 - 1]
    records = np.zeros(len(contents), RECORD_DTYPE)
    records["content"] = [bytes([number]) * 16 for number in contents]
    records["look"] = [looks[number] for number in contents]
    codes = np.array([draw(st.integers(0, 2)) for _ in contents], int)
    return records, {name: np.flatnonzero(codes == code) for code, name in enumerate(("val", "test", "train"))}


def brute_force(records, splits, distance, within):
    """{(split a, split b): [(near, distance, row a, row b), …]} by the definition."""
    pairs = {}
    for a in sorted(splits):
        for b in sorted(splits):
            if a < b or a == b and within:
                rows = [(i, j) for i in splits[a].tolist() for j in splits[b].tolist() if a != b or i < j]
                both = [(records[i]["content"] != records[j]["content"],
                         int(records[i]["look"] ^ records[j]["look"]).bit_count(), i, j) for i, j in rows]
                pairs[a, b] = sorted(pair for pair in both if pair[1] <= distance)
    return pairs


@given(table=hashed_tables(), distance=st.integers(0, 6), within=st.booleans())
def test_find_duplicates_lists_each_pair_once_in_order(table, distance, within):
    found = find_duplicates(*table, distance, within)
    expected = brute_force(*table, distance, within)
    assert {splits: of_splits.pairs.tolist() for splits, of_splits in found.items()} == expected
    assert list(found) == sorted(expected)
    assert not any(of_splits.crowds for of_splits in found.values())


@given(table=hashed_tables(), distance=st.integers(0, 6), within=st.booleans(), crowd=st.integers(0, 9))
def test_a_crowd_names_every_photo_in_few_true_pairs(table, distance, within, crowd):
    expected = brute_force(*table, distance, within)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dedup_pairs, "CROWD", crowd)
        found = find_duplicates(*table, distance, within)
    for splits, of_splits in found.items():
        pairs = of_splits.pairs.tolist()
        assert pairs == sorted(set(pairs)) and set(pairs) <= set(expected[splits])
        for side in (2, 3) if splits[0] != splits[1] else ():
            assert {pair[side] for pair in pairs} == {pair[side] for pair in expected[splits]}
        assert {row for pair in pairs for row in pair[2:]} == {row for pair in expected[splits] for row in pair[2:]}
        assert of_splits.crowds or pairs == expected[splits]


def test_black_photos_make_a_line_each_and_not_millions():
    records = np.zeros(6000, RECORD_DTYPE)
    records["content"] = [b"%016d" % number for number in range(6000)]
    found = find_duplicates(records, {"test": np.arange(1000), "train": np.arange(1000, 6000)}, 4, within=True)
    assert [len(of_splits.pairs) for of_splits in found.values()] == [999, 5999, 4999]
    assert [of_splits.crowds for of_splits in found.values()] == [1, 1, 1]
    between = found["test", "train"].pairs
    assert ((between["a"] == 0) | (between["b"] == 1000)).all(), "others are listed with the first"


def test_two_looks_that_are_close_make_three_crowds_within_a_split():
    records = np.zeros(80, RECORD_DTYPE)
    records["content"], records["look"] = [b"%016d" % number for number in range(80)], [0] * 40 + [1] * 40
    assert find_duplicates(records, {"a": np.arange(80)}, 4, within=True)["a", "a"].crowds == 3


# ---- one photo

def encoded(image: Image.Image, format: str = "JPEG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def scene(number: int, size: tuple[int, int] = (400, 300)) -> Image.Image:
    """A made-up photo: coarse random colors, smoothed."""
    coarse = np.random.default_rng(number).uniform(0, 255, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def apart(a: bytes, b: bytes) -> int:
    return (hash_photo(a).look ^ hash_photo(b).look).bit_count()


TURNED = Image.Exif()
TURNED[0x0112] = 6  # to be turned by 270°

RECODINGS = {
    "quality": lambda image: encoded(image, quality=50),
    "half size": lambda image: encoded(image.resize((200, 150))),
    "four times the size": lambda image: encoded(image.resize((1600, 1200))),
    "gray": lambda image: encoded(image.convert("L")),
    "PNG": lambda image: encoded(image, "PNG"),
    "16-bit gray": lambda image: encoded(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) << 8), "PNG"),
    "transparent": lambda image: encoded(image.convert("RGBA"), "PNG"),
    "CMYK": lambda image: encoded(image.convert("CMYK"), quality=90),
    "progressive": lambda image: encoded(image, progressive=True),
    "EXIF": lambda image: encoded(image.transpose(Image.Transpose.ROTATE_90), exif=TURNED),
}


@pytest.mark.parametrize("name", RECODINGS)
def test_a_photo_stored_another_way_looks_the_same(name):
    for number in range(5):
        image = scene(number)
        again = RECODINGS[name](image)
        assert apart(encoded(image, quality=90), again) <= 4
        assert hash_photo(again).content != hash_photo(encoded(image, quality=90)).content


def test_other_photos_and_flipped_ones_look_different():
    photos = [encoded(scene(number), quality=90) for number in range(12)]
    assert min(apart(a, b) for a in photos for b in photos if a is not b) > 12
    flipped = encoded(scene(0).transpose(Image.Transpose.FLIP_LEFT_RIGHT), quality=90)
    assert apart(photos[0], flipped) > 12


def test_a_photo_of_one_color_has_a_hash():
    assert hash_photo(encoded(Image.new("RGB", (90, 70)))).look == 0


@given(cut=st.integers(0, 5000), flips=st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 255)), max_size=4))
@settings(max_examples=150)
def test_damaged_files_are_hashed_or_rejected(cut, flips):
    data = bytearray(encoded(scene(1), quality=90, exif=TURNED))
    for at, bits in flips:
        data[at % len(data)] ^= bits
    try:
        hash_photo(bytes(data[:len(data) - cut]))
    except Rejected:
        pass


@pytest.mark.parametrize("data, reason", [(b"", "empty file"), (b"no photo", "not an image")])
def test_what_is_no_photo_is_rejected_with_its_reason(data, reason):
    with pytest.raises(Rejected, match=f"^{reason}$"):
        hash_photo(data)


def test_a_truncated_photo_is_rejected():
    with pytest.raises(Rejected, match="^truncated or corrupt"):
        hash_photo(encoded(scene(1), quality=90)[:-200])


def test_the_largest_photo_is_that_of_packing():
    data = encoded(scene(1), quality=90)
    assert hash_photo(data, 400 * 300) == hash_photo(data)
    with pytest.raises(Rejected, match="^more than 119999 pixels$"):
        hash_photo(data, 400 * 300 - 1)


# ---- hashes on disk

def test_the_store_returns_each_key_once(tmp_path):
    one, two = np.zeros(3, RECORD_DTYPE), np.zeros(2, RECORD_DTYPE)
    one["key"], one["content"], two["key"] = [5, 2, 9], [b"a" * 16, b"b" * 15 + b"\0", b"\0" * 16], [9, 1]
    hashes.save(tmp_path, one)
    hashes.save(tmp_path, two)
    (tmp_path / "half.npy.part").write_bytes(b"left by a kill")
    hashes.save(tmp_path, one[:0])
    assert len(list(tmp_path.glob("*.npy"))) == 2
    assert hashes.load(tmp_path)["key"].tolist() == [1, 2, 5, 9]
    assert hashes.load(tmp_path)[1:3].tolist() == one[[1, 0]].tolist()
    assert len(hashes.load(tmp_path / "none")) == 0


# ---- the report

def samples_of(splits: str, labels: list[int]) -> pd.DataFrame:
    """A table of photos p000, p001, …: splits "attv" gives a, t, t and v; landmark of label l: 10 l."""
    return pd.DataFrame({"id": [f"p{number:03}" for number in range(len(splits))],
                         "landmark_id": ["" if label < 0 else str(10 * label) for label in labels],
                         "label": labels, "split": list(splits)})


def found_in(samples: pd.DataFrame, looks: list[int], within: bool = False):
    records = np.zeros(len(samples), RECORD_DTYPE)
    records["content"] = [b"%016d" % number for number in range(len(samples))]
    records["look"] = np.array(looks, np.uint64)
    splits = {name: np.flatnonzero(samples["split"] == name) for name in samples["split"].unique()}
    return find_duplicates(records, splits, 4, within)


def test_a_long_report_is_written_in_batches(tmp_path, monkeypatch):
    samples = samples_of("a" * 9 + "b" * 9, list(range(18)))
    found = found_in(samples, list(range(18)))
    write_report(tmp_path / "whole.csv", samples, found)
    monkeypatch.setattr("preprocess.dedup.report.BATCH", 7)
    write_report(tmp_path / "parts.csv", samples, found)
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert len((tmp_path / "parts.csv").read_text().splitlines()) == 1 + len(found["a", "b"].pairs) > 50


def test_summary_counts_pairs_photos_and_other_landmarks():
    samples = samples_of("aabbc", [0, 1, 0, 0, -1])
    lines = list(summary(samples, found_in(samples, [0, 0, 1, 2 ** 40 - 1, 2 ** 50 - 1], within=True)))
    assert lines == [
        "within a: 0 exact and 1 near pairs, 1 of them with different landmarks; photos concerned: 2 of a",
        "a and b: 0 exact and 2 near pairs, 1 of them with different landmarks; photos concerned: 2 of a and 1 of b",
        "a and c: no duplicates", "within b: no duplicates", "b and c: no duplicates", "within c: no duplicates"]


def test_summary_says_where_a_crowd_is_not_listed_in_full():
    samples = samples_of("a" * 40 + "b" * 30, [0] * 70)
    lines = list(summary(samples, found_in(samples, [0] * 70)))
    assert lines[1:] == ["  crowds: 1 pairs of hashes have more than 1,000 pairs of photos each; there each photo is "
                         "listed "
                         "with one other only"]
    assert lines[0].endswith("69 near pairs, 0 of them with different landmarks; photos concerned: 40 of a and 30 of b")


def test_failures_are_counted_by_kind():
    reasons = {4: "not an image", 1: "truncated or corrupt: 3 bytes", 0: "truncated or corrupt: 1 byte",
               5: "truncated or corrupt: 1 byte", 2: "truncated or corrupt: 2 bytes"}
    assert list(failures(samples_of("aaaaaa", [0] * 6), reasons)) == [
        "5 photos could not be hashed and were not compared", "  not an image: 1 (p004)",
        "  truncated or corrupt: 4 (p000, p001, p002, …)"]
    assert list(failures(samples_of("a", [0]), {})) == []


# ---- dropping

@given(rows=st.lists(st.tuples(st.sampled_from("abc"), st.integers(-1, 5), st.integers(0, 5)), min_size=1, max_size=30))
def test_thinning_leaves_no_duplicate_but_the_last_of_a_class(rows):
    splits, drawn, looks = zip(*rows)
    labels = np.unique([-1, *drawn], return_inverse=True)[1][1:] - 1  # 0 … C-1 and -1
    samples = samples_of("".join(splits), labels.tolist())
    thinning = thin(samples, found_in(samples, [1023 << 10 * look for look in looks], within=True), "a")
    left = samples.drop(index=thinning.dropped)
    assert class_ids(left) == class_ids(samples)
    assert (samples["split"].iloc[thinning.dropped] == "a").all()
    others = {look for split, look in zip(splits, looks) if split != "a"}
    leaks = [row for row, (split, look) in enumerate(zip(splits, looks)) if split == "a" and look in others]
    assert sorted([*thinning.dropped, *thinning.kept]) == leaks
    for row in thinning.kept:
        assert labels[row] >= 0 and (left["label"] == labels[row]).sum() == 1
    if len(thinning.kept):
        assert all(row == min(np.flatnonzero(labels == labels[row])) for row in thinning.kept)


# ---- the command

@pytest.fixture(scope="module")
def leaky(tmp_path_factory) -> Path:
    """A folder with samples.csv and photos: test copies of train photos, equal and re-encoded, and broken files."""
    folder = tmp_path_factory.mktemp("leaky")
    (folder / "photos").mkdir()
    images = {f"train{number}": scene(number) for number in range(6)}
    images |= {"test0": scene(0), "test1": scene(1).resize((200, 150)), "test2": scene(20), "val0": scene(2),
               "val1": scene(3)}
    for key, image in images.items():
        (folder / "photos" / f"{key}.jpg").write_bytes(encoded(image, quality=90))
    (folder / "photos" / "broken.jpg").write_bytes(b"no photo")
    rows = [("val1", "<b>9", 1, "val", "6"), ("val0", "7", 0, "val", "5")]
    rows += [(f"train{number}", "<b>9", 1, "train", number) for number in (5, 4, 3)]
    rows += [(f"train{number}", "7", 0, "train", number) for number in (2, 1, 0)]
    rows += [("test0", "7", 0, "test", "-1"), ("test1", "", -1, "test", "-1"), ("test2", "7", 0, "test", "-1"),
             ("gone", "7", 0, "test", "-1"), ("broken", "7", 0, "train", "9")]
    table = pd.DataFrame(rows, columns=["id", "landmark_id", "label", "split", "fold"])
    table.to_csv(folder / "samples.csv", index=False)
    return folder


@pytest.fixture
def duplicates(call, leaky, tmp_path):
    """Run the command on the leaky photos, its report to duplicates.csv in the test's folder."""
    def run(*options):
        return call(SCRIPT, "--samples", leaky / "samples.csv", "--images", leaky / "photos", "--out",
                    tmp_path / "duplicates.csv", *options)
    return run


REPORT = f"""{HEADER}
test0,test,7,train0,train,7,exact,0
test1,test,,train1,train,7,near,0
train2,train,7,val0,val,7,exact,0
train3,train,<b>9,val1,val,<b>9,exact,0
"""


def test_report_and_summary_name_each_leak(duplicates, tmp_path):
    done = duplicates("--workers", "2")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "duplicates.csv").read_text() == REPORT
    assert done.stdout == f"""hashed 11 photos, took 0 hashes from {tmp_path}/duplicates.csv.hashes
test and train: 1 exact and 1 near pairs, 1 of them with different landmarks; photos concerned: 2 of test and 2 of train
test and val: no duplicates
train and val: 2 exact and 0 near pairs, 0 of them with different landmarks; photos concerned: 2 of train and 2 of val
2 photos could not be hashed and were not compared
  file not found: 1 (gone)
  not an image: 1 (broken)
"""


def test_hashes_are_used_again_and_failed_photos_tried_again(duplicates, tmp_path):
    duplicates("--workers", "1", "--distance", "0")
    report = (tmp_path / "duplicates.csv").read_text()
    assert len(hashes.load(tmp_path / "duplicates.csv.hashes")) == 11
    done = duplicates("--workers", "1", "--distance", "12", "--within")
    assert done.stdout.startswith("hashed 0 photos, took 11 hashes from")
    assert "within train: no duplicates" in done.stdout and "file not found: 1 (gone)" in done.stdout
    assert (tmp_path / "duplicates.csv").read_text() == report == REPORT


def test_drop_writes_the_table_without_leaks_as_it_was(duplicates, leaky, tmp_path):
    """Every other field stays; the last photo of a class is kept, said, and found again."""
    done = duplicates("--drop", "train", "--cleaned", tmp_path / "cleaned.csv", "--workers", "1")
    assert done.stdout.splitlines()[-1] == f"dropped 4 photos of train: {tmp_path}/cleaned.csv"
    before = (leaky / "samples.csv").read_text().splitlines(keepends=True)
    after = [line for line in before if line.split(",")[0] not in ("train0", "train1", "train2", "train3")]
    assert (tmp_path / "cleaned.csv").read_text() == "".join(after)
    read_samples(tmp_path / "cleaned.csv")


def test_drop_keeps_a_class_that_would_be_gone(call, leaky, tmp_path):
    (tmp_path / "samples.csv").write_text("id,landmark_id,label,split\ntrain0,7,0,train\ntest0,,-1,test\n"
                                          "train4,8,1,train\n")
    done = call(SCRIPT, "--samples", tmp_path / "samples.csv", "--images", leaky / "photos", "--out",
                tmp_path / "d.csv", "--drop", "train", "--cleaned", tmp_path / "cleaned.csv", "--workers", "1")
    assert done.stdout.splitlines()[-1] == (
        f"dropped 0 photos of train: {tmp_path}/cleaned.csv; kept 1 that have a duplicate, since each is the last of "
        f"its class: train0")
    assert (tmp_path / "cleaned.csv").read_text() == (tmp_path / "samples.csv").read_text()


def test_the_thinned_table_can_be_cleaned_again(duplicates, tmp_path, call):
    """The docstring's two commands: classes that became too small go, the other photos keep split and fold."""
    duplicates("--drop", "train", "--cleaned", tmp_path / "samples2.csv", "--workers", "1")
    thinned = (tmp_path / "samples2.csv").read_text().splitlines()
    awk, clean = re.findall(r"    (awk .*|python .*)", duplicates_command.__doc__)[-2:]
    subprocess.run(awk, shell=True, cwd=tmp_path, check=True)
    words = clean.replace("--min-images 15 …", "--min-images 3").split()[1:]
    done = call(*(tmp_path / word if word.endswith(".csv") else word for word in words))
    assert done.returncode == 0, done.stderr
    kept = [line.replace("<b>9,1", "<b>9,0") for line in thinned if "<b>9" in line or line.startswith("id,")]
    assert (tmp_path / "samples3.csv").read_text().splitlines() == kept and len(kept) == 4


def test_photos_are_found_in_archives_by_their_path(call, leaky, tmp_path):
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        for key in ("train0", "test1"):
            tar.add(leaky / "photos" / f"{key}.jpg", f"some/{key} 1.JPG")
    (tmp_path / "samples.csv").write_text("id,landmark_id,label,split,path\na,7,0,train,some/train0 1.JPG\n"
                                          "b,7,0,test,train1.jpg\nc,7,0,val,some/test1 1.JPG\n")
    done = call(SCRIPT, "--samples", tmp_path / "samples.csv", "--images", tmp_path / "photos.tar", leaky / "photos",
                "--out", tmp_path / "d.csv", "--workers", "1")
    assert done.stdout.startswith("hashed 3 photos"), done.stderr
    assert (tmp_path / "d.csv").read_text() == f"{HEADER}\nb,test,7,c,val,7,near,0\n"


def test_two_photos_for_one_id_are_refused(call, leaky, tmp_path):
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        for folder, key in (("thumbs", "train0"), ("train", "test1")):
            tar.add(leaky / "photos" / f"{key}.jpg", f"{folder}/a.jpg")
    (tmp_path / "samples.csv").write_text("id,landmark_id,label,split\na,7,0,train\nb,7,0,test\n")
    done = call(SCRIPT, "--samples", tmp_path / "samples.csv", "--images", tmp_path / "photos.tar", "--out",
                tmp_path / "d.csv", "--workers", "1")
    assert done.returncode == 2 and "two members a.jpg (thumbs/a.jpg, train/a.jpg; 1 such)" in done.stderr
    assert not (tmp_path / "d.csv").exists()


def test_a_photo_in_another_place_is_hashed_anew():
    samples = pd.DataFrame({"id": ["a", "b"], "path": ["x/1.jpg", "x/2.jpg"]})
    keys = [*photo_keys(samples, ["/photos"]), *photo_keys(samples, ["/other"]), *photo_keys(samples, []),
            *photo_keys(samples.assign(path=["x/2.jpg", "x/1.jpg"]), ["/photos"]),
            *photo_keys(samples.drop(columns="path"), ["/photos"])]
    assert len(set(keys)) == 10
    assert photo_keys(samples[1:], ["/photos"]) == keys[1]


class Folder:
    """A source whose photo p003 is gone by now."""

    urls: list[str] = []

    def locate(self, keys, paths):
        return [Placed(key) for key in keys]


class Placed(str):
    def read(self) -> bytes:
        if self == "p003":
            raise Rejected("file not found")
        return encoded(scene(int(self[1:])))


class Lost(Folder):
    """A source that fails, through no fault of a photo."""

    def __init__(self, error: Exception):
        self.error = error

    def locate(self, keys, paths):
        return [self] * len(keys)

    def read(self) -> bytes:
        raise self.error


@pytest.mark.parametrize("error", [UserError("s3://bucket must be readable"), OSError("too many open files")])
def test_a_source_that_fails_stops_the_command_without_a_report(tmp_path, error):
    with pytest.raises(type(error), match=f"^{error}$"):
        hash_photos(samples_of("ab", [0, 0]), Lost(error), tmp_path / "hashes", Engine(1))
    assert list((tmp_path / "hashes").iterdir()) == []


def test_page_shows_pairs_small_and_escaped(duplicates, tmp_path):
    duplicates("--html", tmp_path / "pairs.html", "--workers", "1")
    page = (tmp_path / "pairs.html").read_text()
    assert "&lt;b&gt;9" in page and "<b>9" not in page and "<script" not in page and "http:" not in page
    assert "4 of 4 pairs" in page and page.count("near, 0 of 64 bits differ") == 1
    photos = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    assert len(photos) == 8
    assert all(max(Image.open(io.BytesIO(base64.b64decode(photo))).size) == 160 for photo in photos)


def test_page_shows_the_most_distant_pairs_and_says_which_photo_is_gone(monkeypatch):
    samples = samples_of("aaabbb", [0] * 6)
    found = found_in(samples, [0, 2 ** 20 - 1, 2 ** 50 - 1, 1, 2 ** 20 - 4, 2 ** 50 - 16])
    assert sorted(found["a", "b"].pairs["distance"]) == [1, 2, 4]
    monkeypatch.setattr(duplicates_page, "PAIRS", 2)
    page = duplicates_page.render(samples, found, ["a line"], Folder())
    assert re.findall(r"near, (\d) of", page) == ["4", "2"] and "2 of 3 pairs" in page and "cannot be read" not in page
    monkeypatch.setattr(duplicates_page, "PAIRS", 50)
    page = duplicates_page.render(samples, found, [], Folder())
    assert re.findall(r"near, (\d) of", page) == ["4", "2", "1"] and page.count("photo cannot be read") == 1


def test_a_killed_command_goes_on_where_it_stopped(tmp_path, call):
    """kill -9 while photos are hashed; the same command then hashes the rest and reports the same."""
    (tmp_path / "photos").mkdir()
    photos = [encoded(scene(number, (160, 120))) for number in range(6)]
    rows = ["id,landmark_id,label,split"]
    for number in range(3072):
        (tmp_path / "photos" / f"p{number}.jpg").write_bytes(photos[number % 6])
        rows.append(f"p{number},7,0,{'test' if number < 6 else 'train'}")
    (tmp_path / "samples.csv").write_text("\n".join(rows) + "\n")
    command = [SCRIPT, "--samples", tmp_path / "samples.csv", "--images", tmp_path / "photos"]
    process = subprocess.Popen([sys.executable, *command, "--out", tmp_path / "killed.csv", "--workers", "1"], cwd=ROOT,
                               stderr=subprocess.DEVNULL, start_new_session=True)
    while not list((tmp_path / "killed.csv.hashes").glob("*.npy")):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed.csv").exists()
    again = call(*command, "--out", tmp_path / "killed.csv", "--workers", "1")
    whole = call(*command, "--out", tmp_path / "whole.csv", "--workers", "2")
    fresh, reused = map(int, re.match(r"hashed ([\d,]+) photos, took ([\d,]+) hashes from",
                                      again.stdout).expand(r"\1 \2").replace(",", "").split())
    assert fresh + reused == 3072 and reused >= 1024 and reused % 1024 == 0
    assert whole.stdout.startswith("hashed 3,072 photos, took 0 hashes")
    assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert again.stdout.splitlines()[1:] == whole.stdout.splitlines()[1:]


@pytest.mark.parametrize("options, sentence", [
    (["--distance", "13"], "--distance is 13: give 0 to 12 bits; with more, different photos match"),
    (["--distance", "-1"], "--distance is -1: give 0 to 12 bits; with more, different photos match"),
    (["--drop", "train"], "--drop is given without --cleaned: --drop names a split, --cleaned the table to write "
                          "without its duplicates, add the missing one"),
    (["--cleaned", "x.csv"], "--cleaned is given without --drop: --drop names a split, --cleaned the table to write "
                             "without its duplicates, add the missing one"),
    (["--drop", "tests", "--cleaned", "x.csv"], "samples.csv has no split tests: set --drop to one of test, train, "
                                                "val"),
    (["--workers", "0"], "--workers is 0: give at least 1"),
    (["--max-pixels", "0"], "--max-pixels is 0: give at least 1"),
])
def test_a_wrong_option_is_answered_in_a_sentence(leaky, tmp_path, monkeypatch, options, sentence):
    monkeypatch.setattr(sys, "argv", [SCRIPT, "--samples", f"{leaky}/samples.csv", "--images", f"{leaky}/photos",
                                      "--out", f"{tmp_path}/d.csv", *options])
    with pytest.raises(UserError, match=re.escape(sentence) + "$"):
        duplicates_command.main()
    assert list(tmp_path.iterdir()) == []


def test_a_table_of_one_split_needs_within(call, leaky, tmp_path, refused):
    (tmp_path / "samples.csv").write_text("id,landmark_id,label,split\ntrain0,7,0,train\ntrain1,7,0,train\n")
    command = [SCRIPT, "--samples", tmp_path / "samples.csv", "--images", leaky / "photos", "--out", tmp_path / "d.csv"]
    refused(call(*command), f"{tmp_path}/samples.csv has only the split train")
    assert call(*command, "--within").returncode == 0


def test_too_many_pairs_are_a_sentence(monkeypatch):
    monkeypatch.setattr(dedup_pairs, "MAX_PAIRS", 3)
    samples, hashed = samples_of("aabb", [0] * 4), HashedPhotos(np.zeros(4, RECORD_DTYPE), {}, 0)
    with pytest.raises(UserError, match="^--distance 4 finds more than 20,000,000 pairs: choose "
                                        "a smaller one$"):
        compare(samples, hashed, 4, within=False)
    assert len(compare(samples, hashed._replace(reasons={1: "gone"}), 4, within=False)["a", "b"].pairs) == 2


def test_a_missing_library_is_a_sentence(duplicates, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagehash", None)
    refused(duplicates(), "the package imagehash, which finds near duplicates, is not installed: pip install "
                          "'arcshard[duplicates]'")


def test_a_second_call_on_one_report_is_refused(duplicates, tmp_path, refused):
    store = tmp_path / "duplicates.csv.hashes"
    store.mkdir()
    with folder_lock(store):
        refused(duplicates(), f"{store} is locked: another process writes into it")
    assert duplicates().returncode == 0


def test_a_full_disk_is_a_sentence(leaky, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(duplicates_command, "write_report", full)
    monkeypatch.setattr(sys, "argv", [SCRIPT, "--samples", f"{leaky}/samples.csv", "--images", f"{leaky}/photos",
                                      "--out", f"{tmp_path}/d.csv"])
    with pytest.raises(UserError, match="d.csv .No space left on device.: make space and run"):
        duplicates_command.main()


# ---- landmarks of a benchmark

def test_the_landmarks_of_a_benchmark_can_be_left_out_of_training(duplicates, leaky, tmp_path, refused):
    (tmp_path / "oxford" / "jpg").mkdir(parents=True)
    for name, number in (("all_souls_1", 4), ("Radcliffe 2", 30)):
        (tmp_path / "oxford" / "jpg" / f"{name}.jpg").write_bytes(encoded(scene(number).resize((150, 110)), quality=80))
    done = duplicates("--benchmark", tmp_path / "oxford", "--block", tmp_path / "block.txt")
    assert done.returncode == 0, done.stderr
    of_landmark_9 = ["train3", "train4", "train5", "val1"]  # scene 4 is train4
    assert (tmp_path / "block.txt").read_text().split() == of_landmark_9
    assert "benchmark and train: 0 exact and 1 near pairs; photos" in done.stdout
    assert "4 photos to leave out of training" in done.stdout
    refused(duplicates("--benchmark", tmp_path / "oxford"), "belong together")
    (tmp_path / "empty").mkdir()
    refused(duplicates("--benchmark", tmp_path / "empty", "--block", tmp_path / "block.txt"), "has no photos")
