"""adopt --label-from: landmarks from img2dataset's .json or from a CSV, where a tar has no numbers in .cls."""
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from arcshard.console import UserError
from loader import Loader
from shards import Dataset
from shards.adopt import adopt
from shards.repair import repair
from shards.verify import verify
from tests.test_shards_adopt import pairs, photo, tar_of, webdataset_tars

LANDMARKS = [100, 9, 100, 20, 9, 100, 7]


def encoded(number: int, gray: bool) -> bytes:
    """What img2dataset's resizer writes: it lets OpenCV encode what OpenCV decoded, in one component if it is gray."""
    pixels = np.random.default_rng(number).integers(0, 256, (4, 5), dtype=np.uint8)
    pixels = cv2.resize(pixels, (50, 40), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", pixels if gray else cv2.merge([pixels] * 3))[1].tobytes()


def img2dataset_tars(folder: Path, gray: bool = True) -> list[Path]:
    """As its WebDatasetSampleWriter writes them: shard and number in 9 digits; .jpg, .json and .txt in this order."""
    return webdataset_tars(folder, [
        {"__key__": f"{number:09d}", "jpg": encoded(number, gray and number == 2), "txt": "Église, “2”",
         "json": json.dumps({"url": "https://x/y.png", "key": f"{number:09d}", "status": "success", "exif": "{}",
                             "error_message": None, "original_width": 500, "landmark_id": landmark}, indent=4)}
        for number, landmark in enumerate(LANDMARKS)])


def table(path: Path, *rows: str, header: str = "key,landmark_id") -> str:
    path.write_text("\n".join([header, *rows, ""]))
    return str(path)


def test_tars_of_img2dataset_are_adopted(tmp_path):
    """Ids that are numbers are ordered as numbers; each photo is there, the gray one too, and other members are not."""
    tars = img2dataset_tars(tmp_path)
    adopt({"train": tars[:2], "val": tars[2:]}, tmp_path / "out", label_from="json:landmark_id")
    assert verify(tmp_path / "out") == [] and repair(tmp_path / "out") == ([], [])
    train, val = Dataset(tmp_path / "out"), Dataset(tmp_path / "out", "val")
    assert train.landmark_ids == ["7", "9", "20", "100"]
    assert [train.landmark_ids[label] for label in [*train.labels, *val.labels]] == [*map(str, LANDMARKS)]
    assert [train.read(i) for i in range(6)] == [encoded(i, i == 2) for i in range(6)]
    assert [key.decode() for key in train.index["key"]] == [f"{i:09d}" for i in range(6)]
    assert train.manifest["packing"]["label_from"] == "json:landmark_id"
    assert (tmp_path / "out" / "classes.csv").read_text() == (
        "label,landmark_id,images,name\n0,7,0,\n1,9,2,\n2,20,1,\n3,100,3,\n")
    line = (tmp_path / "out" / "train-000000.idx").read_text().splitlines()[1]
    assert line == f"jpg {train.index['offset'][0]} {train.index['size'][0]} 000000000.jpg"


def test_the_loader_reads_them_gray_ones_too(tmp_path):
    images = {}
    for gray in (True, False):
        (tmp_path / f"{gray}").mkdir()
        tars = img2dataset_tars(tmp_path / f"{gray}", gray)
        adopt({"train": tars}, tmp_path / f"{gray}" / "out", label_from="json:landmark_id")
        loader = Loader(Dataset(tmp_path / f"{gray}" / "out"), batch_size=7, size=32, train=False, num_threads=1)
        batch = next(iter(loader))
        assert batch.labels.tolist() == [3, 1, 3, 2, 1, 3, 0]
        images[gray] = batch.images.numpy().astype(int)
    assert (images[True] == images[False])[[0, 1, 3, 4, 5, 6]].all()
    assert np.ptp(images[True][2]) > 100 and np.abs(images[True][2] - images[False][2]).max() <= 3


def test_landmarks_come_from_a_csv(tmp_path):
    """By name in the tar, with folder, and with extension or without; white space in a landmark becomes _."""
    tar = tar_of(tmp_path / "a.tar", [*pairs("A", "x/b"), ("c.jpg", photo(2)), ("d.cls.jpg", photo(3))])
    source = table(tmp_path / "l.csv", "Dom,A,1", " Notre  Dame ,x/b.jpg,2", "-1,c,3", "Dom,d,4", "Rom, e,5",
                   header="landmark_id, key,more")
    adopt({"train": [tar]}, tmp_path / "out", label_from=source)
    dataset = Dataset(tmp_path / "out")
    assert dataset.labels.tolist() == [0, 1, -1, 0]
    assert dataset.landmark_names == {"Dom": "", "Notre_Dame": "Notre  Dame"}
    assert verify(tmp_path / "out") == []


def test_cls_may_hold_words(tmp_path):
    """Which verify and repair do not take for numbers; white space in them becomes _."""
    words = [b"Dom", b" Notre Dame\n", b"-1", "Église".encode()]
    tar = tar_of(tmp_path / "a.tar", [member for number, word in enumerate(words)
                                      for member in ((f"{number}.jpg", photo(number)), (f"{number}.cls", word))])
    adopt({"train": [tar]}, tmp_path / "out", label_from="cls:text")
    dataset = Dataset(tmp_path / "out")
    assert dataset.labels.tolist() == [0, 1, -1, 2]
    assert dataset.landmark_names == {"Dom": "", "Notre_Dame": "Notre Dame", "Église": ""}
    (tmp_path / "out/train.index.npy").unlink()
    assert repair(tmp_path / "out") == (["train.index.npy"], []) and verify(tmp_path / "out") == []
    tar = tar_of(tmp_path / "b.tar", [("a.jpg", photo(0)), ("a.cls", b"\xff")])
    with pytest.raises(UserError, match="member a.cls is no text in UTF-8"):
        adopt({"train": [tar]}, tmp_path / "other", label_from="cls:text")


def test_classes_order_the_landmarks(tmp_path):
    classes = tmp_path / "c.csv"
    classes.write_text("label,landmark_id,name\n0,9,\n1,Notre Dame,Paris\n2,A,\n")
    source = table(tmp_path / "l.csv", "a,A", "b,Notre Dame")
    tar = tar_of(tmp_path / "a.tar", pairs("a", "b"))
    adopt({"train": [tar]}, tmp_path / "out", classes, label_from=source)
    dataset = Dataset(tmp_path / "out")
    assert dataset.labels.tolist() == [2, 1] and dataset.landmark_names == {"9": "", "Notre_Dame": "Paris", "A": ""}
    table(classes, "0,A", header="label,landmark_id")
    with pytest.raises(UserError, match="--classes lacks the landmark 'Notre_Dame' of .*l.csv"):
        adopt({"train": [tar]}, tmp_path / "other", classes, label_from=source)


def test_labels_from_elsewhere_are_vouched_for_and_not_rebuilt(tmp_path):
    adopt({"train": img2dataset_tars(tmp_path)}, tmp_path / "out", label_from="json:landmark_id")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for name in ("train.index.npy", "train-000001.idx"):
        (tmp_path / "out" / name).unlink()
    assert repair(tmp_path / "out") == (["train-000001.idx", "train.index.npy"], [])
    labels = np.load(tmp_path / "out" / "train.labels.npy")
    np.save(tmp_path / "out" / "train.labels.npy", labels[::-1])
    assert verify(tmp_path / "out")[-1] == "train.labels.npy: its sha256 is not the one it was packed with"
    assert repair(tmp_path / "out") == ([], ["train.labels.npy: its sha256 is not the one it was packed with, and no "
                                             "other file has its content: restore it from a backup"])
    np.save(tmp_path / "out" / "train.labels.npy", labels)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    (tmp_path / "out" / "dataset.json").unlink()
    assert repair(tmp_path / "out").lost[0].endswith("restore dataset.json, or adopt the tars again with --label-from")


@pytest.mark.parametrize("data, sentence", [
    (b'{"id": 1}', "a.json is no JSON object with the field landmark"), (b"[1]", "a.json is no JSON object"),
    (b"{", "a.json is no JSON object"), (b"\xff", "a.json is no JSON object"),
    (b"[" * 9999, "a.json is no JSON object"),
    (b'{"landmark": 1.5}', "a.json has a landmark that is neither text nor a whole number"),
    (b'{"landmark": "\\ud800"}', "a.json is no JSON object"),
    (b'{"landmark": null}', "a.json has a landmark that is neither"),
    (b'{"landmark": true}', "a.json has a landmark that is neither"),
    (b'{"landmark": " nan "}', "sample a has no landmark in json:landmark"),
    (None, "member a.jpg has no a.json beside")])
def test_a_json_without_a_landmark_is_named(tmp_path, data, sentence):
    tar = tar_of(tmp_path / "a.tar", [("a.jpg", photo(0)), *([] if data is None else [("a.json", data)])])
    with pytest.raises(UserError) as error:
        adopt({"train": [tar]}, tmp_path / "out", label_from="json:landmark")
    assert f"{tar} is not a valid shard: " in str(error.value) and sentence in str(error.value)
    assert str(error.value).endswith("check --label-from")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


@pytest.mark.parametrize("rows, header, sentence", [
    (["a,A"], "key,landmark_id", "sample b has no landmark in .*l.csv"),
    (["a,A", "b"], "key,landmark_id", "sample b has no landmark in .*l.csv"),
    (["a,A"], "id,landmark_id", "l.csv lacks the columns key: give --label-from a CSV with key and landmark_id"),
    (["a,A", "b,B", "a.jpg,B"], "key,landmark_id", "l.csv has the landmarks 'A' and 'B' for the key 'a'"),
    (["a,A B", "b,A_B"], "key,landmark_id", "l.csv has the classes 'A B' and 'A_B', which are the same"),
    (None, "", "l.csv cannot be read .No such file or directory.: check --label-from")])
def test_a_csv_that_does_not_fit_is_refused(tmp_path, rows, header, sentence):
    tar = tar_of(tmp_path / "a.tar", pairs("a", "b"))
    if rows is not None:
        table(tmp_path / "l.csv", *rows, header=header)
    with pytest.raises(UserError, match=sentence):
        adopt({"train": [tar]}, tmp_path / "out", label_from=str(tmp_path / "l.csv"))
    assert not (tmp_path / "out").exists()


def test_the_command_names_and_takes_the_option(tmp_path, call):
    tars = img2dataset_tars(tmp_path)
    done = call("-m", "shards", "adopt", *tars, "--out", tmp_path / "out")
    assert done.returncode == 2 and done.stderr.endswith("give the labels by --label-from json:FIELD or a CSV\n")
    done = call("-m", "shards", "adopt", *tars, "--out", tmp_path / "out", "--label-from", "json:landmark_id")
    assert done.returncode == 0 and "label_from json:landmark_id" in done.stdout
    assert call("-m", "shards", "verify", tmp_path / "out").returncode == 0
