"""The report page: offline, escaped, readable without colors, always the same bytes, drawn by a browser."""
import base64
import io
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pages.charts import Line, line_chart
from pages.report import (
    LEARNING,
    SPEED,
    ReportData,
    ShownNeighbor,
    ShownQuery,
    choose_queries,
    draw,
    render,
    score_rows,
    stage_starts,
    tiles,
)
from pages.templates import thumbnail

HOSTILE = """<script>alert(1)</script><img src=http://x/y.png onerror=a> "'&amp;"""
CHROMIUM = shutil.which("chromium")
VOID = {"meta", "img", "br", "input"}


def jpeg(color, size=(60, 40)):
    encoded = io.BytesIO()
    Image.new("RGB", size, color).save(encoded, "JPEG")
    return encoded.getvalue()


@pytest.fixture
def data():
    lines = [{"step": s, "position": 64 * s, "epoch": s / 10, "loss": 5 / s, "lr": .1, "margin": .3,
              "images_per_s": 10.0 * s, "data_wait_share": .02, "replaced": 3 * (s == 9), "skipped": 1}
             for s in range(1, 41)]
    lines.append({"position": 1280, "epoch": 2, "val_recall@1": .7})
    found = [ShownNeighbor(jpeg("lime"), name, cosine) for name, cosine in (("7", .9), ("8", .8), ("", .7))]
    return ReportData(
        run="demo", packed=1860, rejected=9, own=("val", "test"), generalized=False,
        untrained={"val": {"gap": .5, "recall@1": .6}},
        trained={"val": {"gap": .7, "recall@1": .55}, "test": {"gap": .25}}, metrics=lines,
        views=np.full((32, 24, 24, 3), (255, 0, 255), np.uint8), split="test",
        cosines={"own landmark": np.array([.8, .9], np.float32), "another": np.array([.3], np.float32)},
        queries={"Some": [ShownQuery(jpeg("cyan"), "a1", "7", found)],
                 "Others": [ShownQuery(jpeg("cyan"), "b2", "", found)]})


class Page(HTMLParser):
    """Elements in order as (tag, attributes); fails on a tag that is not closed where it must be."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.text = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.text.append((self.open[-1] if self.open else "", text))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def charts_of(html):
    contents = re.findall(r'data:image/svg\+xml;base64,([^"]+)', html)
    return [base64.b64decode(content).decode() for content in contents]


def test_nothing_is_fetched(data):
    """Every reference is a data URI, in page and charts; no script or frame; the policy forbids the rest."""
    page = Page(html := render(data))
    references = [value for _, attributes in page.elements for name, value in attributes.items()
                  if name in {"src", "href", "srcset", "action", "data", "poster"}]
    assert len(references) == 6 + 1 + 32 + 8
    assert all(reference.startswith("data:image/") for reference in references)
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "link", "iframe", "object", "form"})
    assert not re.search(r"url\(|@import", html)
    assert page.all("meta")[-1]["content"].startswith("default-src 'none'; img-src data:")
    charts = charts_of(html)
    assert len(charts) == 6 + 1
    for svg in charts:
        assert "<script" not in svg and not re.search(r'(src|href)="(?!#)', svg)


def test_every_name_is_escaped(data):
    found = [ShownNeighbor(jpeg("lime"), HOSTILE, .5)]
    hostile = replace(data, run=HOSTILE, split=HOSTILE, trained={HOSTILE: {"gap": .1}},
                      queries={HOSTILE: [ShownQuery(jpeg("cyan"), HOSTILE, HOSTILE, found)]})
    page = Page(render(hostile))
    assert page.all("script") == []
    assert all(image["src"].startswith("data:") and "onerror" not in image for image in page.all("img"))
    places = {tag for tag, text in page.text if HOSTILE in text}
    assert places == {"title", "h1", "td", "p", "h3", "figcaption"}
    assert [HOSTILE in image["alt"] for image in page.all("img")[-2:]] == [True, True]


def test_right_and_wrong_are_said_in_words_and_colors(data):
    """Landmark 7 has neighbors 7, 8 and none; to a query without landmark each is wrong, none included."""
    page = Page(render(data))
    classes = [figure["class"] for figure in page.all("figure") if "class" in figure]
    assert classes == ["asked", "right", "wrong", "wrong", "asked", "wrong", "wrong", "wrong"]
    marks = [text for tag, text in page.text if tag == "b" and text[0] in "✓✗"]
    expected = ["right", "wrong", "wrong", "wrong", "wrong", "wrong"]
    assert marks[2:] == [{"right": "✓ right", "wrong": "✗ wrong"}[name] for name in expected]
    alts = [image["alt"] for image in page.all("img") if image["alt"].startswith("Neighbor")]
    assert alts[:3] == ["Neighbor 1, right: 7", "Neighbor 2, wrong: 8", "Neighbor 3, wrong: no landmark"]


def test_names_stand_for_ids_where_they_are_known(data):
    """Two landmarks of one name are still two."""
    named = (("7", "Old Town"), ("8", "Old Town"), ("9", ""))
    found = [ShownNeighbor(jpeg("lime"), id, .5, name) for id, name in named]
    page = Page(render(replace(data, queries={"Some": [ShownQuery(jpeg("cyan"), "a1", "7", found, "Old Town")]})))
    alts = [image["alt"] for image in page.all("img") if image["alt"].startswith("Neighbor")]
    assert alts == ["Neighbor 1, right: Old Town", "Neighbor 2, wrong: Old Town", "Neighbor 3, wrong: 9"]


def test_the_page_opens_with_what_came_of_the_run(data):
    page = Page(render(data))
    headings = [text for tag, text in page.text if tag == "h2"]
    assert headings[:5] == ["Did it learn?", "Is it good?", "What limits the speed?", "What to try next?", "Figures"]
    assert any("bad-batches.jsonl" in text for tag, text in page.text if tag == "li")


def test_every_picture_has_words(data):
    page = Page(render(data))
    assert all(image["alt"].strip() for image in page.all("img"))
    assert page.elements[0] == ("html", {"lang": "en"})


def test_same_data_same_bytes(data):
    html = render(data)
    assert render(data) == html
    assert not any(re.search(r"<metadata|\d{4}-\d\d-\d\dT", svg) for svg in charts_of(html))


def test_headline_figures(data):
    assert tiles(data) == [("photos packed", "1,860"), ("photos rejected", "9"),
                           ("images/s in training", "205.0"), ("of the time waited for data", "2.0 %"),
                           ("damaged photos replaced", "3"), ("bad updates left out", "40")]
    assert score_rows(data) == [("val", "recall@1", "0.600", "0.550", "−0.050"),
                                ("val", "GAP", "0.500", "0.700", "+0.200"),
                                ("test", "GAP", "–", "0.250", "–")]


def test_a_run_without_log_or_queries_still_has_a_page(data):
    html = render(replace(data, metrics=[], untrained={}, cosines={}, queries={}))
    assert charts_of(html) == [] and "no log of training (metrics.jsonl)" in html
    assert "waiting for data" not in html and "How far apart" not in html and "1,860" in html
    assert [value for _, value in tiles(replace(data, metrics=[]))[2:]] == ["–"] * 4


def test_a_line_without_a_loss_is_left_out(data):
    lines = [{"position": 1, "loss": 2.0, "stage": "low"}, {"position": 2, "loss": None, "stage": "low"}]
    assert len(charts_of(render(replace(data, metrics=lines, cosines={})))) == 1


def test_thumbnails_fit_and_keep_their_shape():
    for size, expected in (((900, 600), (200, 133)), ((60, 40), (60, 40)), ((40, 1000), (8, 200))):
        content = base64.b64decode(thumbnail(jpeg("red", size), 200).partition(",")[2])
        with Image.open(io.BytesIO(content)) as small:
            assert (small.size, small.mode) == (expected, "RGB")


STAGES = [{"position": p, "loss": 1.0, "stage": "low" if p < 30 else "high"} for p in (10, 20, 30, 40)]


def test_the_curves_of_stages_are_apart_and_named():
    assert stage_starts(STAGES) == {"low": 0, "high": 20} and stage_starts(STAGES[:2]) == {}
    (caption, uri), = draw(LEARNING, STAGES)
    svg, = charts_of(f'"{uri}"')
    assert caption == "Training loss" and ">low</text>" in svg and ">high</text>" in svg
    curve = re.search(r'id="line2d_\d+">\s*<path d="(M [^"]*)"[^>]*stroke: #0b5cad', svg)[1]
    assert curve.count("M") == 2, "two strokes, with a gap between"


def test_instruments_are_drawn_in_their_units_where_there_are_any():
    line = {"position": 10, "target_cosine": 0.5, "wrong_angle": math.pi / 2, "norm": 3.0,
            "dead_centers": .1, "memory_mb": 1500.0}
    assert [caption for caption, _ in draw(LEARNING, [line])] == [
        "Mean angles between val photos and class centers", "Length of val embeddings before they are normalized",
        "Class centers nearest to no val photo"]
    angles = next(chart for chart in LEARNING if chart.unit == "degrees")
    assert [curve.shown(line[curve.key]) for curve in angles.curves] == [pytest.approx(60), 90]
    assert [caption for caption, _ in draw(SPEED, [line])] == ["Memory"]
    assert SPEED[-1].curves[0].shown(line["memory_mb"]) == 1.5


def test_several_lines_have_a_legend_and_one_has_none():
    lines = [Line("loss", [1, 2], [2.0, 1.0]), Line("if nothing is learned", [1, 2], [3.0, 3.0])]
    one, two = (charts_of(f'"{line_chart(drawn, "nats")}"')[0] for drawn in (lines[:1], lines))
    assert "if nothing is learned" in two and "loss" not in one and "nats" in one


def test_a_loss_that_is_not_finite_leaves_a_gap():
    assert line_chart([Line("", [1, 2, 3], [1.0, float("nan"), 2.0])]).startswith("data:image/svg")


QUERY = st.tuples(st.floats(-1, 1, width=32), st.booleans(), st.booleans())


@given(st.lists(QUERY, max_size=60), st.integers(4, 24))
def test_chosen_queries(queries, count):
    """No row twice, as many as there are up to count, and each group the extreme of its kind."""
    table = np.array(queries).reshape(-1, 3)
    cosines, is_landmark = table[:, 0].astype(np.float32), table[:, 1] > 0
    right = is_landmark & (table[:, 2] > 0)
    chosen = choose_queries(cosines, right, is_landmark, count)
    rows = [i for group in chosen.values() for i in group.tolist()]
    assert len(rows) == len(set(rows)) == min(count, len(queries))
    kinds = {"Wrong, and most confident": (is_landmark & ~right, cosines),
             "Without landmark, and most confident": (~is_landmark, cosines),
             "Right, and least confident": (right, -cosines)}
    for heading, (kind, rank) in kinds.items():
        group = chosen.get(heading, np.zeros(0, int))
        expected = np.sort(rank[kind])[::-1][:count // 4]
        assert kind[group].all() and rank[group].tolist() == expected.tolist()
    again = choose_queries(cosines, right, is_landmark, count)
    assert all((chosen[heading] == again[heading]).all() for heading in chosen)


def browse(page, screenshot, width, *options):
    """Draw the page in Chromium; returns the pixels, uint8 (H, W, 3), and the lines of its console."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
               "--disable-component-update", "--disable-sync", "--no-first-run", "--hide-scrollbars",
               "--enable-logging=stderr", f"--user-data-dir={screenshot.parent / 'profile'}",
               f"--screenshot={screenshot}", f"--window-size={width},7000", *options, page.as_uri()]
    log = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stderr
    with Image.open(screenshot) as image:
        return np.asarray(image.convert("RGB")), [line for line in log.splitlines() if "CONSOLE" in line]


def share_of(pixels, color):
    return float((np.abs(pixels.astype(int) - color).max(axis=2) < 12).mean())


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")
@pytest.mark.parametrize("width", [1280, 360])
def test_a_browser_draws_it(data, tmp_path, width):
    """Views are magenta, queries cyan, neighbors lime, curves blue: all are seen, nothing is blocked.

    In a frame, as Chromium's window has at least 500 pixels.
    """
    (tmp_path / "report.html").write_text(render(data))
    (tmp_path / "frame.html").write_text(f'<!DOCTYPE html><body style="margin: 0"><iframe src="report.html" '
                                         f'style="border: 0; width: {width}px; height: 7000px"></iframe>')
    pixels, console = browse(tmp_path / "frame.html", tmp_path / "page.png", max(width, 500))
    pixels = pixels[:, :width]
    assert console == []
    assert share_of(pixels, (255, 0, 255)) > 0.01
    assert share_of(pixels, (0, 255, 255)) > 0.001 and share_of(pixels, (0, 255, 0)) > 0.003
    assert share_of(pixels, (11, 92, 173)) > 0.0005
    assert share_of(pixels[:, -8:], (255, 255, 255)) == 1.0  # nothing runs over the right edge


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")
def test_a_dark_page_has_light_curves(data, tmp_path):
    (tmp_path / "report.html").write_text(render(replace(data, views=data.views[:0], queries={})))
    pixels, _ = browse(tmp_path / "report.html", tmp_path / "page.png", 1280, "--blink-settings=preferredColorScheme=0")
    assert share_of(pixels, (13, 17, 23)) > 0.9, "the paper"
    assert share_of(pixels, (255, 255, 255)) == 0 and share_of(pixels, (11, 92, 173)) == 0
    assert share_of(pixels, (104, 179, 255)) > 0.0002, "curves"


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")
def test_the_browser_would_tell_of_a_request(data, tmp_path):
    """The check above can fail: a picture from elsewhere is blocked by the page's policy, aloud."""
    html = render(data).replace("</h1>", '</h1><img src="file:///elsewhere.png">')
    (tmp_path / "report.html").write_text(html)
    _, console = browse(tmp_path / "report.html", tmp_path / "page.png", 1280)
    assert any("Content Security Policy" in line for line in console)
