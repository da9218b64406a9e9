"""info: the figures are those of the photos; its page fetches nothing, escapes everything, and a browser draws it."""
import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from arcshard.console import UserError
from arcshard.files import sha256
from pages.charts import bar_chart, histogram, size_map
from pages.info import render
from shards import CorruptSample, Dataset
from shards.info import info, octaves

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "<script>alert('x')</script>\"&"


class Page(HTMLParser):
    """Elements and texts of a page, each with the innermost element around it."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def html(dataset_path) -> str:
    return render(dataset_path)


def test_info_says_what_the_dataset_is(dataset_path):
    text = info(dataset_path)
    lines = text.splitlines()
    assert re.fullmatch(r"format version 1, 6 classes, \d+ files, \d\.\d MB", lines[0])
    assert lines[1].startswith("packed with short_side None, quality 90, ")
    assert "shard_size 25, seed 0" in lines[1]
    train = text.partition("train: ")[2].partition("val: ")[0]
    assert train.startswith("60 samples in 3 shards\n")
    assert "width      200 / 200 / 200 pixels\n  height     150 / 150 / 150 pixels\n" in train
    assert "classes    6 occur, photos a class 10 / 10 / 10\n  landmark   0 samples have none\n" in train
    assert train.endswith(f"    photos a class    classes\n              8–15          6  {'█' * 40}\n")
    assert "landmark   3 samples have none" in text.partition("test: ")[2].partition("train: ")[0]


def test_the_bytes_are_those_of_the_photos(dataset_path):
    sizes = [len(Dataset(dataset_path).read(i)) for i in range(60)]
    assert (f"bytes {min(sizes):,} / {np.median(sizes):,.0f} / {max(sizes):,} (least / median / most)"
            in info(dataset_path))


@given(st.lists(st.one_of(st.integers(0, 70), st.sampled_from([2**k + d for k in range(7, 50) for d in (-1, 0, 1)]))))
def test_octaves_hold_each_count_once(counts):
    bins = octaves(np.array(counts, np.int64))
    assert sum(number for _, number in bins) == sum(count > 0 for count in counts)
    bounds = [[int(bound.replace(",", "")) for bound in label.split("–")] for label, _ in bins]
    for bound, (_, number) in zip(bounds, bins):
        assert number == sum(bound[0] <= count <= bound[-1] for count in counts)
        assert bound[-1] == 2 * bound[0] - 1
    assert not bins or (bins[0][1] > 0 and bins[-1][1] > 0)


def test_the_page_shows_each_split_with_charts_and_photos(html, dataset_path):
    found = Page(html)
    assert [heading for heading in ("Split test", "Split train", "Split val") if heading in found.text] == [
        "Split test", "Split train", "Split val"]
    alts = [image["alt"] for image in found.all("img")]
    assert len([alt for alt in alts if alt.startswith("Chart of split train: ")]) == 4
    shown = [alt.removeprefix("Photo ") for alt in alts if alt.startswith("Photo ")]
    keys = {split: [key.decode() for key in Dataset(dataset_path, split).index["key"]] for split in ("train", "test")}
    assert len({*shown} & {*keys["train"]}) == 48 and {*keys["test"]} <= {*shown}
    assert "60 photos in 3 shards" in found.text and "3 photos show no landmark" in found.text
    assert all(name in found.text for name in ("photos a class", "width, pixels", "shard_size", "1007"))


def test_the_page_is_whole_in_itself_and_the_same_each_time(html, dataset_path):
    found = Page(html)
    references = [value for _, attributes in found.elements for name, value in attributes.items()
                  if name in {"src", "href", "srcset", "action", "data", "poster"}]
    assert references and all(reference.startswith("data:image/") for reference in references)
    assert {tag for tag, _ in found.elements}.isdisjoint({"script", "link", "iframe", "object", "form"})
    assert found.all("meta")[-1]["content"].startswith("default-src 'none'; img-src data:")
    charts = re.findall(r'data:image/svg\+xml;base64,([^"]+)', html)
    assert charts
    for svg in charts:
        assert not re.search(r'<script|(src|href)="(?!#|data:)', base64.b64decode(svg).decode())
    assert render(dataset_path) == html


def test_every_name_is_escaped(dataset_path, tmp_path):
    """Landmark ids, options and the folder's name come from users."""
    copy = shutil.copytree(dataset_path, tmp_path / "<b>")
    text = (copy / "classes.csv").read_text().replace("\n0,1000,", '\n0,"' + HOSTILE.replace('"', '""') + '",')
    digest = sha256(copy / "classes.csv")
    (copy / "classes.csv").write_text(text)
    manifest = (copy / "dataset.json").read_text().replace('"seed": 0', '"<i>": "<u>"')
    (copy / "dataset.json").write_text(manifest.replace(digest, sha256(copy / "classes.csv")))
    found = Page(render(copy))
    assert {"script", "b", "i", "u"}.isdisjoint({tag for tag, _ in found.elements})
    assert HOSTILE in found.text and "Dataset <b>" in found.text and "<i>" in found.text and "<u>" in found.text


def test_a_damaged_photo_is_named(dataset_path, tmp_path):
    copy = shutil.copytree(dataset_path, tmp_path / "copy")
    row = Dataset(copy, "test").index[0]
    with open(copy / "test-000000.tar", "r+b") as f:
        f.seek(int(row["offset"]) + 300)
        f.write(b"rot")
    with pytest.raises(CorruptSample, match=f"sample {row['key'].decode()} of split test is damaged"):
        render(copy)


@pytest.mark.parametrize("name", ["train.index.npy", "val.labels.npy"])
def test_damaged_tables_are_a_sentence(dataset_path, tmp_path, name):
    copy = shutil.copytree(dataset_path, tmp_path / "copy")
    (copy / name).write_bytes(b"x" * 20)
    with pytest.raises(UserError, match=f"^{copy}/{name} is damaged"):
        info(copy)


def test_a_count_that_is_not_that_of_the_index_is_a_sentence(dataset_path, tmp_path):
    copy = shutil.copytree(dataset_path, tmp_path / "copy")
    manifest = json.loads((copy / "dataset.json").read_text())
    manifest["splits"]["train"]["samples"] -= 1
    (copy / "dataset.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=f"^{copy}/train.index.npy has 60 rows, dataset.json counts 59 samples"):
        info(copy)


def test_charts_of_extreme_values():
    """One photo, all of one size, a long tail of 13 octaves: each is a picture, the same each time."""
    one, many = np.array([300]), np.arange(1, 100_000)
    for chart in (lambda: histogram(one, "x"), lambda: size_map(one, one), lambda: size_map(many, many[::-1]),
                  lambda: bar_chart([(f"{2**k:,}–{2**(k + 1) - 1:,}", 3**k) for k in range(13)], "x", "y"),
                  lambda: bar_chart([("1", 1)], "x", "y")):
        assert chart().startswith("data:image/svg+xml;base64,") and chart() == chart()


def test_the_command_writes_the_page(html, dataset_path, tmp_path, call, refused):
    done = call("report.py", "--data", dataset_path, "--out", tmp_path / "x.html")
    assert (done.returncode, done.stdout) == (0, f"{info(dataset_path)}\npage: {tmp_path}/x.html\n")
    assert (tmp_path / "x.html").read_text() == html
    refused(call("report.py", "--data", tmp_path, "--out", tmp_path / "y.html"), "give the folder that")
    refused(call("-m", "shards", "info", dataset_path, "--html", tmp_path / "y.html"),
            f"python report.py --data {dataset_path} --out {tmp_path}/y.html")
    refused(call("report.py", "--data", dataset_path), "give --out")
    assert not (tmp_path / "y.html").exists()
    with pytest.raises(UserError, match="there is no folder"):
        render(tmp_path / "no")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")
@pytest.mark.parametrize("width", [1280, 500])
def test_a_browser_draws_it(html, tmp_path, width):
    """Nothing is blocked or runs over the edge; bars are blue."""
    (tmp_path / "x.html").write_text(html)
    done = subprocess.run([CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                           "--enable-logging=stderr", f"--window-size={width},3000",
                           f"--screenshot={tmp_path}/x.png", f"file://{tmp_path}/x.html"],
                          capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr
    pixels = np.asarray(Image.open(tmp_path / "x.png").convert("RGB"))
    assert (np.abs(pixels.astype(int) - (11, 92, 173)).max(axis=2) < 12).mean() > 0.005
    assert (pixels[:, -8:] == 255).all()
