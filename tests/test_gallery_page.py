"""The gallery page: offline, escaped, readable without colors, filtered without a script, drawn by a browser."""
import re
from dataclasses import replace

import numpy as np
import pytest

from pages.gallery import (
    ConfusedPair,
    GalleryData,
    TracedCandidate,
    TracedNeighbor,
    TracedQuery,
    TracedStep,
    render,
)
from retrieval.trace import StepFigures
from tests.test_report_page import CHROMIUM, HOSTILE, Page, browse, jpeg, share_of


def query(key, landmark, answer, changed, photo="cyan"):
    """Two steps that show something around one that does not."""
    right = landmark != "" and landmark == answer
    found = [TracedNeighbor(jpeg("lime"), "g1", answer, right, .9, 0, None),
             TracedNeighbor(jpeg("lime"), "g2", "9", False, .8, 0, 7)]
    moved = [replace(found[1], previous_place=2), replace(found[0], previous_place=1, score=-.25)]
    return TracedQuery(jpeg(photo), key, landmark, answer, right, changed, [
        TracedStep("nearest neighbors", [found], [TracedCandidate(answer, right, .9, 0, None)], 2, 12),
        TracedStep("concatenate", [], [], 2, 12),
        TracedStep("local_features", [moved],
                   [TracedCandidate(answer, right, -1.5, 3, .9), TracedCandidate("", False, .1, 0, None)], 1, 0)])


@pytest.fixture
def data():
    rows = [StepFigures("nearest neighbors", .5, 0, 0, 0, 0), StepFigures("local_features", .4321, -.0679, 5, 1, 3)]
    return GalleryData("demo ours", "test", 1237, rows, {
        "Mended": [query("q1", "7", "7", True)],
        "Others": [query("q2", "7", "8", False), query("q3", "", "8", False, "magenta")]},
        30, [ConfusedPair("7", "8", 2, jpeg("cyan"), jpeg("lime")), ConfusedPair("7", "5", 1, jpeg("cyan"), None)])


def test_nothing_is_fetched_and_every_picture_has_words(data):
    page = Page(html := render(data))
    images = page.all("img")
    assert len(images) == 3 * (1 + 2 + 2) + 3
    assert all(image["src"].startswith("data:image/jpeg;base64,") and image["alt"].strip() for image in images)
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "link", "iframe", "object", "form", "a"})
    assert not re.search(r"url\(|@import", html)
    assert page.all("meta")[-1]["content"].startswith("default-src 'none'; img-src data:")
    assert page.elements[0] == ("html", {"lang": "en"}) and render(data) == html


def test_every_name_is_escaped(data):
    hostile = query(HOSTILE, HOSTILE, HOSTILE, True)
    steps = [replace(step, name=HOSTILE, lists=[[replace(found, key=HOSTILE, landmark=HOSTILE) for found in listed]
                                                for listed in step.lists]) for step in hostile.steps]
    page = Page(render(replace(
        data, who=HOSTILE, split=HOSTILE, figures=[replace(row, step=HOSTILE) for row in data.figures],
        queries={HOSTILE: [replace(hostile, steps=steps)]},
        confused=[ConfusedPair(HOSTILE, HOSTILE, 1, jpeg("red"), jpeg("red"))])))
    assert page.all("script") == []
    assert all(image["src"].startswith("data:") and "onerror" not in image for image in page.all("img"))
    assert {tag for tag, text in page.text if HOSTILE in text} == {
        "title", "h1", "h3", "h4", "h5", "th", "p", "li", "span", "figcaption"}


def test_a_step_says_what_it_moved(data):
    text = re.sub(r"\s+", " ", "".join(text for _, text in Page(render(data)).text))
    assert "local_features0.4321 −0.0679 5 1 3" in text and "nearest neighbors0.5000 – – – –" in text
    assert "3 of 1,237 queries are shown" in text and "2 of 30 pairs" in text
    first = text.partition("Mended")[2].partition("Others")[0]
    assert "✓ right: 7 nearest neighbors right landmark: candidate 2; answer: place 12 of 1,237" in first
    assert "concatenate changes nothing here" in first
    assert "right landmark: candidate 2 → 1; answer: place 12 → none of 1,237" in first
    assert "✗ wrong 0.8, 7 inliers 9g2 was 2, now 1" in first and "✓ right −0.25 7g1 was 1, now 2" in first
    assert "✓ right 7: 0.9 → −1.5, was candidate 3" in first and "✗ wrong no landmark: 0.1, new" in first


def test_filters_are_radio_buttons_that_say_how_many(data):
    page = Page(render(data))
    assert [(radio["type"], radio["name"], "checked" in radio) for radio in page.all("input")] == [
        ("radio", "only", True), *3 * [("radio", "only", False)]]
    labels = [re.sub(r"\s+", " ", text).strip() for tag, text in page.text if tag == "label" and text.strip()]
    assert labels == ["all (3)", "answer changed (1)", "landmark, answered wrongly (1)", "without landmark (1)"]
    assert [article["class"] for article in page.all("article")] == ["changed", "missed", "none"]


def test_nothing_confused_and_no_answer_are_said(data):
    bare = replace(query("q", "7", "", False), steps=[])
    text = "".join(text for _, text in Page(render(replace(data, queries={"One": [bare]}, confused=[]))).text)
    assert "no answer" in text and "None: every query with a landmark that was answered was answered rightly" in text


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")
def test_a_browser_draws_and_filters_it(data, tmp_path):
    """Side by side, as a phone and a desk have it: queries with a landmark are cyan, the one without is magenta."""
    html = render(replace(data, confused=[])).replace(" checked>", ">")
    frames = {"none": 400, "changed": 1280}
    for only in frames:
        (tmp_path / f"{only}.html").write_text(html.replace(f'id="only-{only}"', f'id="only-{only}" checked'))
    (tmp_path / "both.html").write_text("<body style='margin: 0; display: flex'>" + "".join(
        f"<iframe src='{only}.html' width='{width}' height='3000' style='border: 0'></iframe>"
        for only, width in frames.items()))
    pixels, console = browse(tmp_path / "both.html", tmp_path / "both.png", sum(frames.values()))
    assert console == []
    phone, desk = pixels[:3000, :400], pixels[:3000, 400:]
    for frame, seen in ((phone, [False, True]), (desk, [True, False])):
        assert [share_of(frame, color) > .001 for color in ((0, 255, 255), (255, 0, 255))] == seen
        assert share_of(frame, (0, 255, 0)) > .001
        np.testing.assert_array_equal(frame[:, -8:], 255)  # nothing runs over the right edge
