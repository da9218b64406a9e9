"""The web app over an answerer that knows one photo: addresses, refusals, the page in a browser."""
import base64
import io
import re
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from werkzeug.serving import make_server

from arcshard.console import UserError
from arcshard.files import DiskFull
from preprocess.images.decode import Rejected
from preprocess.images.normalize import normalize
from retrieval.answers import Answer, Candidate, Neighbor
from retrieval.web import Match, Unreadable
from retrieval.web.app import create_app
from retrieval.web.server import serve

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
HOSTILE = "<img src=x onerror=alert(1)>"
URL = "http://commons.wikimedia.org/wiki/Category:Ch%C3%A2teau_d%27If"
LIMIT = 200_000


def jpeg(color="lime", size=(64, 48), mode="RGB"):
    encoded = io.BytesIO()
    Image.new(mode, size, color).save(encoded, "JPEG")
    return encoded.getvalue()


DOUBTFUL = jpeg("gray")


class OneAnswer:
    """Answers any photo that can be packed alike, with a doubt about one."""
    title = "demo"

    def answer(self, photo):
        readable(photo)
        return Answer("7", URL, 0.9, [Candidate("7", URL, 0.9), Candidate("8", HOSTILE, 0.5), Candidate(None, "", 0.1)],
                      [Neighbor(0, "k0", "7", URL, 0.95), Neighbor(1, "k1", "8", HOSTILE, 0.85)],
                      probably_no_landmark=photo == DOUBTFUL)

    def gallery_photo(self, row):
        return [jpeg("red"), jpeg("blue")][row]

    def match(self, photo, row):
        readable(photo)
        return Match(self.gallery_photo(row), 12)


def readable(photo):
    try:
        normalize(photo, None, 90)
    except Rejected as error:
        raise Unreadable(str(error)) from error


@pytest.fixture(scope="module")
def app():
    return create_app(OneAnswer(), LIMIT, ["127.0.0.1", "localhost"])


def refusal(response, status):
    assert response.status_code == status and set(response.json) == {"error"}
    return response.json["error"]


def test_a_photo_is_answered_with_candidates_and_neighbors(app):
    found = app.test_client().post("/answer", data=jpeg()).json
    assert found["candidates"][0] == {"landmark": "7", "name": URL, "score": 0.9}
    assert found["neighbors"][1] == {"row": 1, "id": "k1", "landmark": "8", "name": HOSTILE, "similarity": 0.85}
    assert not found["probably_no_landmark"]
    assert app.test_client().post("/answer", data=DOUBTFUL).json["probably_no_landmark"]


def test_a_match_is_a_picture_with_its_number_of_inliers(app):
    response = app.test_client().post("/match/1", data=jpeg())
    assert response.headers["Inliers"] == "12" and Image.open(io.BytesIO(response.data)).size == (64, 48)


def test_gallery_photos_are_asked_for_by_number_only(app):
    client = app.test_client()
    assert client.get("/gallery/1.jpg").data == jpeg("blue")
    assert refusal(client.get("/gallery/2.jpg"), 404) == "the gallery has no photo of this number"
    assert refusal(client.post("/match/99", data=jpeg()), 404) == "the gallery has no photo of this number"
    for path in ("/gallery/-1.jpg", "/gallery/../app.py", "/static/../app.py", "/gallery/%2e%2e%2fapp.py"):
        refusal(client.get(path), 404)


def test_what_is_too_large_or_empty_is_refused(app):
    client = app.test_client()
    assert refusal(client.post("/answer", data=b"x" * (LIMIT + 1)), 413) == "a photo may have at most 200,000 bytes"
    assert refusal(client.post("/answer"), 400) == "the request's body is empty: send an image file"
    refusal(client.get("/answer"), 405)


def test_a_full_disk_is_the_servers_fault(app, monkeypatch):
    def answer(*_):
        raise DiskFull

    monkeypatch.setattr(OneAnswer, "answer", answer)
    assert "no disk space" in refusal(app.test_client().post("/answer", data=jpeg()), 507)


def png_of(width, height):
    """A PNG that claims to be so large and has no pixels."""
    chunks = [b"IHDR" + width.to_bytes(4) + height.to_bytes(4) + bytes([8, 2, 0, 0, 0]), b"IDAT"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (len(chunk) - 4).to_bytes(4) + chunk + zlib.crc32(chunk).to_bytes(4) for chunk in chunks)


@pytest.mark.parametrize("photo, why", [
    (b"hello, I am no photo", "not an image"), (jpeg()[:300], "truncated or corrupt"),
    (png_of(50_000, 50_000), "more than 89478485 pixels")], ids=["text", "half", "bomb"])
def test_what_is_no_photo_is_refused_with_the_reason(app, photo, why):
    for path in ("/answer", "/match/0"):
        said = refusal(app.test_client().post(path, data=photo), 415)
        assert said.startswith("this is no photo that can be read: ") and why in said


@given(st.one_of(st.binary(min_size=1, max_size=400),
                 st.tuples(st.integers(0, 700), st.binary(max_size=8)).map(
                     lambda cut: jpeg()[:cut[0]] + cut[1] + jpeg()[cut[0] + len(cut[1]):])))
def test_no_upload_is_an_error_of_the_server(app, photo):
    assert app.test_client().post("/answer", data=photo).status_code in (200, 400, 415)


def test_pages_elsewhere_cannot_ask(app):
    client = app.test_client()
    assert "only this server's own page" in refusal(
        client.post("/answer", data=jpeg(), headers={"Sec-Fetch-Site": "cross-site"}), 403)
    refusal(client.get("/", headers={"Host": "attacker.example"}), 400)  # a name that was bent to this machine


def test_the_page_loads_from_here_only(app):
    with app.test_client().get("/") as response:
        html = response.text
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
    assert "http:" not in html and "https:" not in html and "onclick" not in html and "<style" not in html


def test_the_page_takes_several_photos_from_keyboard_and_clipboard(app):
    """A button is in the order of Tab, and Enter and Space press it; `hidden` keeps the input out of that order."""
    with app.test_client().get("/") as page, app.test_client().get("/static/app.js") as program:
        html, script = page.text, program.text
    assert re.search(r'<button id="drop"[^>]* type="button">', html)
    assert re.search(r'<input id="file" type="file"[^>]* multiple hidden>', html)
    assert '"paste"' in script and all(f'id="{name}"' in html for name in re.findall(r'at\("([\w-]+)"\)', script))


def test_a_port_in_use_is_one_sentence(app):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1:{port} .*give another"):
            serve(app, "127.0.0.1", port)


def test_sigterm_ends_it_cleanly():
    program = ("from retrieval.web.app import create_app; from retrieval.web.server import serve; "
               'serve(create_app(None, 1000), "127.0.0.1", 0)')
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as server:
        address = server.stdout.readline().split()[2].rstrip(";")
        with urllib.request.urlopen(address) as response:
            assert "Which landmark is this?" in response.read().decode()
        server.terminate()
        assert (server.wait(30), server.stderr.read()) == (0, "")


@pytest.fixture
def address(app):
    """The app on a port, in this process."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def brought(driver, *photos, event="drop", carrier="dataTransfer"):
    """Drop or paste files on the page as a mouse or keyboard would."""
    driver.execute_script("""
        const [photos, event, carrier] = arguments, data = new DataTransfer();
        for (const [i, photo] of photos.entries()) {
          const bytes = Uint8Array.from(atob(photo), (c) => c.charCodeAt(0));
          data.items.add(new File([bytes], `photo${i}.jpg`, { type: "image/jpeg" }));
        }
        const kind = event === "drop" ? DragEvent : ClipboardEvent;
        document.getElementById("drop").dispatchEvent(new kind(event, { [carrier]: data, bubbles: true }));
        """, [base64.b64encode(photo).decode() for photo in photos], event, carrier)


@pytest.fixture
def driver():
    from selenium import webdriver
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("--headless", "--no-sandbox", "--disable-gpu", "--window-size=900,1200", "--no-first-run"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs a browser: apt-get install chromium chromium-driver")
def test_photos_that_are_brought_to_the_page_are_answered(address, driver):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    def all_of(css):
        return driver.find_elements(By.CSS_SELECTOR, css)

    def verdicts():
        return [found.text for found in all_of(".verdict")]

    wait = WebDriverWait(driver, 20)
    driver.get(address)
    driver.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert driver.switch_to.active_element.get_attribute("id") == "drop"
    assert driver.switch_to.active_element.value_of_css_property("outline-style") == "solid"

    brought(driver, jpeg())
    wait.until(lambda _: verdicts() == ["Answered: Château d'If"])
    listed = all_of(".candidates li")
    assert [item.text.splitlines()[0] for item in listed] == ["Château d'If", HOSTILE, "no landmark"]
    assert listed[0].find_element(By.TAG_NAME, "a").get_attribute("href") == URL
    photos = all_of(".neighbors img")
    wait.until(lambda d: all(d.execute_script("return arguments[0].naturalWidth", photo) == 64 for photo in photos))
    links = [link.get_attribute("href") for link in all_of(".neighbors a")]
    assert links == [URL, f"{address}/gallery/0.jpg", f"{address}/gallery/1.jpg"]
    all_of(".neighbors button")[1].send_keys(Keys.ENTER)
    wait.until(lambda _: driver.find_element(By.ID, "match-title").text == "12 points in common with k1")
    driver.find_element(By.CSS_SELECTOR, "#match button").click()
    assert [line for line in driver.get_log("browser") if line["level"] == "SEVERE"] == []

    brought(driver, b"no photo", DOUBTFUL, jpeg())
    wait.until(lambda _: driver.find_element(By.ID, "state").text == "2 of 3 photos answered")
    broken, doubtful, fine = verdicts()
    assert "Not answered: this is no photo that can be read" in broken and fine == "Answered: Château d'If"
    assert doubtful == "Probably no landmark of the gallery; the least unlikely: Château d'If"
    assert [found.text for found in all_of(".file")] == ["photo0.jpg", "photo1.jpg", "photo2.jpg"]

    brought(driver, jpeg(), event="paste", carrier="clipboardData")
    wait.until(lambda _: verdicts() == ["Answered: Château d'If"])
    brought(driver, event="paste", carrier="clipboardData")
    assert driver.find_element(By.ID, "state").text == "The clipboard holds no photo."
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                           {"width": 360, "height": 700, "deviceScaleFactor": 1, "mobile": False})
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 360
