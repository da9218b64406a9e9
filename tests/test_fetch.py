"""fetch.py as its user runs it, against a server that speaks as Kaggle does: killed, refused, without a token."""
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from arcshard.console import UserError
from preprocess.fetching.kaggle import KaggleFile, kaggle_file
from tests.kaggle_server import DATA, KEY, NAME, SIGNATURE, TOKEN, Kaggle, running

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "preprocess" / "fetch.py"
HALF = len(DATA) // 2
COMPETITIONS = "/api/v1/competitions.CompetitionApiService/"


@pytest.fixture
def kaggle() -> Iterator[Kaggle]:
    with running() as server:
        yield server


@pytest.fixture
def home(tmp_path) -> Path:
    (tmp_path / "home" / ".kaggle").mkdir(parents=True)
    return tmp_path / "home"


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def start(kaggle, home, out) -> Callable[..., subprocess.Popen]:
    """Start the command where Kaggle's addresses lead to the test's server, which plays their proxy."""
    def begin(*words: str, preexec_fn: Callable | None = None, **variables: str) -> subprocess.Popen:
        inherited = {name: value for name, value in os.environ.items()
                     if not name.lower().endswith("_proxy") and not name.startswith("KAGGLE_")}
        environment = {**inherited, "HOME": str(home), "http_proxy": kaggle.url, "https_proxy": kaggle.url,
                       "KAGGLE_API_ENVIRONMENT": "LOCALHOST", **variables}
        command = words if "-c" in words else (str(SCRIPT), "--out", str(out), *words)
        return subprocess.Popen([sys.executable, *command], env=environment, cwd=ROOT, text=True,
                                preexec_fn=preexec_fn, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return begin


@pytest.fixture
def fetch(start, out) -> Callable[..., subprocess.CompletedProcess]:
    """Run the command to its end; whatever it is, no secret is in what it says or leaves beside the file."""
    def run(*words: str, KAGGLE_API_TOKEN: str = TOKEN, **options: Any) -> subprocess.CompletedProcess:
        process = start(*words, KAGGLE_API_TOKEN=KAGGLE_API_TOKEN, **options)
        said, noted = process.communicate(timeout=60)
        everything = said + noted + "".join(path.read_text() for path in out.glob("*.json"))
        assert not [secret for secret in (TOKEN, KEY, SIGNATURE, "Basic ") if secret in everything]
        assert "Traceback" not in noted, noted
        return subprocess.CompletedProcess(process.args, process.returncode, said, noted)
    return run


def wait_for_bytes(part: Path, count: int) -> None:
    for _ in range(3000):
        if part.exists() and part.stat().st_size >= count:
            return
        time.sleep(0.01)
    raise AssertionError(f"{part} never had {count} bytes")


def test_the_zip_comes_whole_with_the_token_shown_to_kaggle_only(kaggle, fetch, out):
    done = fetch()
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"fetched {out / NAME}: 3.1 MB, checked: size and hash\n"
    assert [path.name for path in out.iterdir()] == [NAME] and (out / NAME).read_bytes() == DATA
    assert kaggle.calls[-1] == (COMPETITIONS + "DownloadDataFiles", {"competitionName": NAME[:-4]}, f"Bearer {TOKEN}")
    assert not [headers for headers in kaggle.gets if "Authorization" in headers]


def test_a_killed_fetch_goes_on_from_the_bytes_that_are_there(kaggle, start, fetch, out):
    kaggle.faults.append(("stall", HALF))
    process, part = start(KAGGLE_API_TOKEN=TOKEN), out / f"{NAME}.part"
    wait_for_bytes(part, HALF - (1 << 18))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    have = part.stat().st_size
    assert not (out / NAME).exists() and have < len(DATA)
    done = fetch()
    assert done.returncode == 0 and "anew" not in done.stderr, done.stderr
    assert [headers.get("Range") for headers in kaggle.gets] == [None, f"bytes={have}-"]
    assert [path.name for path in out.iterdir()] == [NAME] and (out / NAME).read_bytes() == DATA


def test_a_cut_line_is_noted_and_another_link_asked_for(kaggle, fetch, out):
    kaggle.faults.append(("cut", HALF))
    done = fetch()
    assert done.returncode == 0 and (out / NAME).read_bytes() == DATA
    assert "the connection broke off; try 2 of 12 in 1 s" in done.stderr
    assert [call for call, *_ in kaggle.calls].count(COMPETITIONS + "DownloadDataFiles") == 2


def test_a_busy_kaggle_and_an_expired_link_are_asked_again(kaggle, fetch, out):
    kaggle.passing.append(429)
    kaggle.expired.append(403)
    done = fetch()
    assert done.returncode == 0 and (out / NAME).read_bytes() == DATA
    assert "the server answered 429; try 2 of 12 in 2 s\nthe server answered 403; try 3 of 12 in 2 s\n" in done.stderr


def test_a_full_disk_keeps_what_came(kaggle, fetch, out):
    """RLIMIT_FSIZE stands in for the disk: the kernel refuses the write in the middle of the file."""
    limit = HALF // 4096 * 4096
    done = fetch(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert done.returncode == 2
    assert f"no room left for {out} (File too large): make space" in done.stderr
    assert (out / f"{NAME}.part").stat().st_size == limit
    assert fetch().returncode == 0 and (out / NAME).read_bytes() == DATA
    assert kaggle.gets[-1]["Range"] == f"bytes={limit}-"


def test_the_second_fetcher_is_refused(kaggle, start, fetch, refused, out):
    kaggle.faults.append(("stall", HALF))
    first = start(KAGGLE_API_TOKEN=TOKEN)
    wait_for_bytes(out / f"{NAME}.part", 1)
    refused(fetch(), f"{out} is locked: another process writes into it")
    assert first.poll() is None
    first.kill()
    first.communicate()


def test_a_file_that_is_there_is_not_fetched_again(kaggle, fetch, refused, out):
    out.mkdir()
    (out / NAME).write_bytes(DATA)
    (out / f"{NAME}.part.json").write_text("{}")
    done = fetch(KAGGLE_API_TOKEN="")
    assert (done.returncode, done.stderr) == (0, "") and not kaggle.calls and not kaggle.gets
    assert done.stdout == f"nothing to fetch: {out / NAME} exists (3.1 MB); delete it to fetch it again\n"
    assert [path.name for path in out.iterdir()] == [NAME]
    (out / NAME).write_bytes(DATA[:HALF])
    refused(fetch(), f"{out / NAME} is not a whole zip: it has no zip directory at its end")


@pytest.mark.parametrize("zipped", [False, True])
def test_one_file_of_a_competition_or_of_a_dataset(kaggle, fetch, out, zipped):
    kaggle.zipped = zipped
    for words, call, body in (
            (("--file", "train.csv"), COMPETITIONS + "DownloadDataFile",
             {"competitionName": NAME[:-4], "fileName": "train.csv"}),
            (("--dataset", "someone/photos", "--file", "a/index.csv"),
             "/api/v1/datasets.DatasetApiService/DownloadDataset",
             {"ownerSlug": "someone", "datasetSlug": "photos", "fileName": "a/index.csv"})):
        for saying in ("fetched", "exists"):
            done = fetch(*words)
            assert done.returncode == 0 and saying in done.stdout, done.stderr
        assert kaggle.calls[-1][:2] == (call, body)
    end = ".zip" if zipped else ""
    assert sorted(path.name for path in out.iterdir()) == [f"index.csv{end}", f"train.csv{end}"]


def test_without_a_token_it_says_how_to_get_one(kaggle, fetch, refused):
    done = fetch(KAGGLE_API_TOKEN="")
    refused(done, "no Kaggle token was found: make one at "
            "https://www.kaggle.com/settings/api (Generate New Token), put it into ~/.kaggle/access_token or the "
            "environment variable KAGGLE_API_TOKEN, accept the rules on "
            "https://www.kaggle.com/competitions/landmark-recognition-2020/rules (Join or Late Submission), and run")
    assert done.stdout == "" and not kaggle.calls


def test_every_place_for_a_token_is_known(kaggle, fetch, home, out):
    """The file access_token, kaggle.json, and a user name with a key in the environment."""
    (home / ".kaggle" / "access_token").write_text(TOKEN)
    assert fetch(KAGGLE_API_TOKEN="").returncode == 0 and kaggle.calls[-1][2] == f"Bearer {TOKEN}"
    (home / ".kaggle" / "access_token").unlink()
    (home / ".kaggle" / "kaggle.json").write_text(json.dumps({"username": "someone", "key": KEY}))
    (out / NAME).unlink()
    assert fetch(KAGGLE_API_TOKEN="").returncode == 0 and kaggle.calls[-1][2].startswith("Basic ")
    (home / ".kaggle" / "kaggle.json").unlink()
    (out / NAME).unlink()
    assert fetch(KAGGLE_API_TOKEN="", KAGGLE_USERNAME="someone", KAGGLE_KEY=KEY).returncode == 0
    assert kaggle.calls[-1][2].startswith("Basic ")


def test_a_talkative_kaggle_shows_no_token(kaggle, fetch):
    """VERBOSE makes kaggle print its requests with their headers, and urllib3 log the links."""
    done = fetch(VERBOSE="1", VERBOSE_OUTPUT="1")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1 and "DEBUG" not in done.stderr


@pytest.mark.parametrize("status, words, text", [
    (401, (), "the Kaggle token is not valid: Kaggle refused the one that was found (401); make a new one at "),
    (403, (), "Kaggle gives you no access to landmark-recognition-2020 (403): accept the rules on "
     "https://www.kaggle.com/competitions/landmark-recognition-2020/rules (Join"),
    (403, ("--dataset", "a/b"), "no access to a/b (403): see that https://www.kaggle.com/datasets/a/b opens while you "
                                "are"),
    (404, ("--competition", "x", "--file", "y.csv"), "Kaggle has no x with the file y.csv (404): copy --competition, "
                                                     "--dataset and --file from https://www.kaggle.com/competitions/x"),
    (404, ("--dataset", "a/b"), "Kaggle has no a/b (404): copy --competition, --dataset and --file from "
                                "https://www.kaggle.com/datasets/a/b"),
    (400, (), "Kaggle answered 400 to the request for landmark-recognition-2020: check the names on "
              "https://www.kaggle.com/competitions/landmark-recognition-2020, or"),
    (200, (), "Kaggle gives you no access to landmark-recognition-2020 (403)"),
])
def test_each_refusal_has_its_sentence(kaggle, fetch, refused, out, status, words, text):
    """A 200 whose JSON has the code 403 is one too."""
    kaggle.api_status = status
    refused(fetch(*words), text)
    assert not list(out.iterdir())


def test_a_token_that_kaggle_does_not_know(kaggle, fetch, refused):
    kaggle.token_active = False
    refused(fetch(), "the Kaggle token is not valid: Kaggle does not know the one of KAGGLE_API_TOKEN; make a new one")


def test_a_silent_kaggle_does_not_hold_it_for_ever(kaggle, fetch):
    """kaggle's own requests have no time limit; importing it asks first, and swallows the first alarm."""
    kaggle.api_stalls = True
    done = fetch("-c", "import preprocess.fetching.kaggle as k\nk.TIME_LIMIT = 0.3\n"
                 "try: k.ask(k.KaggleFile('x'))\nexcept (OSError, TimeoutError) as e: print(type(e).__name__)")
    assert done.stdout.strip() in ("ReadTimeout", "TimeoutError"), done.stderr


def test_nonsense_from_kaggle_is_tried_again(kaggle, fetch):
    """Its package trusts the JSON that it reads, and logs in when it is imported."""
    kaggle.nonsense.extend([b"[" * 10**5, b"null", b'{"code": ' + b"9" * 5000 + b"}", b"\xff", b"", b'{"code": "x"}'])
    done = fetch("-c", "import preprocess.fetching.kaggle as k\nfor _ in range(9):\n"
                 "    try: print(k.ask(k.KaggleFile('x')).method)\n    except OSError as e: print(type(e).__name__)")
    said = done.stdout.split()
    assert done.returncode == 0 and said[-1] == "GET" and {*said} <= {"InvalidJSONError", "JSONDecodeError", "GET"}
    assert not kaggle.nonsense and "InvalidJSONError" in said, done.stderr


@pytest.mark.parametrize("words, text", [
    (("--competition", "../x"), "'../x' cannot be the name for --competition: copy NAME"),
    (("--dataset", "photos"), "'photos' cannot be the name for --dataset: copy OWNER/NAME"),
    (("--file", "a/.."), "--file 'a/..' names no file: copy a name from Kaggle's page, or leave it out to fetch all"),
    (("--file", ""), "--file '' names no file: "),
])
def test_a_name_that_cannot_be_one(words, text):
    given = dict(zip(words[::2], words[1::2]))
    with pytest.raises(UserError) as error:
        kaggle_file(given.get("--competition", "x"), given.get("--dataset"), given.get("--file"))
    assert str(error.value).startswith(text)


def test_the_name_on_the_disk_is_the_users_not_the_servers():
    assert KaggleFile("x", "a/b.csv").name_at("http://s/../../evil.csv?.zip") == "b.csv"
    assert KaggleFile("x", "a/b.csv").name_at("http://s/evil.csv%2Ezip?X=1") == "b.csv.zip"
    assert KaggleFile("x", "b.zip").name_at("http://s/b.zip") == "b.zip" and KaggleFile("a/b").name == "b.zip"
