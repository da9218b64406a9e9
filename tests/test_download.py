"""download.py: whatever a network does, the file ends up byte for byte what the server has, or a sentence says why."""
import errno
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

import preprocess.fetching.download
import preprocess.fetching.retry
from arcshard.console import UserError
from preprocess.fetch import report_full_disk
from preprocess.fetching.download import PartFile, download
from preprocess.fetching.served import ServedFile, first_byte, read_record, served_file, write_record
from tests.kaggle_server import DATA, SIGNATURE, Kaggle, running, zip_bytes

HALF = len(DATA) // 2
OTHER, TINY = zip_bytes(1, len(DATA) // 3 + 999), zip_bytes(2, 3000)
RECORD = ServedFile(len(DATA), '"v1"', None, None, None)


@pytest.fixture
def kaggle() -> Iterator[Kaggle]:
    with running() as server:
        yield server


@pytest.fixture
def part(tmp_path) -> PartFile:
    return PartFile(tmp_path / "photos.zip")


@pytest.fixture
def get(kaggle, part) -> Callable[..., ServedFile]:
    """Download from the server, with short waits."""
    return lambda tries=3, timeout=5.0: download(part, kaggle.request, timeout, tries, first_wait=0.001)


@pytest.fixture
def naps(monkeypatch) -> list[float]:
    """The waits that were asked for; none is waited."""
    waits: list[float] = []
    monkeypatch.setattr(preprocess.fetching.retry.time, "sleep", waits.append)
    return waits


def assert_whole(part: PartFile, data: bytes = DATA) -> None:
    """The file has its bytes, and nothing lies beside it."""
    assert part.whole.read_bytes() == data
    assert [path.name for path in part.whole.parent.iterdir()] == [part.whole.name]


@pytest.mark.parametrize("number", ["9" * 5000, "1e9", "-5", "", "x"])
def test_a_length_that_is_no_number_is_none(number):
    response = requests.Response()
    response.headers["Content-Length"] = number
    assert served_file(response).size is None
    response.headers["Content-Range"] = f"bytes {number}-{number}/{number}"
    assert served_file(response).size is None and first_byte(response) == 0


def test_a_file_comes_in_one_request(kaggle, part, get):
    served = get()
    assert_whole(part)
    assert served.size == len(DATA) and served.md5 and served.etag == '"v1"' and len(kaggle.gets) == 1


@pytest.mark.parametrize("fault, words", [("cut", "the connection broke off"), ("stall", "the server fell silent")])
def test_what_came_before_a_fault_is_not_fetched_again(kaggle, part, get, capfd, fault, words):
    kaggle.faults.append((fault, HALF))
    get(timeout=0.2)
    assert_whole(part)
    first, second = kaggle.gets
    assert "Range" not in first and HALF - preprocess.fetching.download.CHUNK <= int(second["Range"][6:-1]) <= HALF
    assert f"{words}; try 2 of 3 in 0.001 s" in capfd.readouterr().err


@pytest.mark.parametrize("fault", [500, 503, 403, 404, 429])
def test_an_error_page_touches_nothing_that_came(kaggle, part, get, capfd, fault):
    """Also as the answer to a request for the rest, where kaggle 2.2.4 writes the page over the bytes."""
    kaggle.faults.extend([fault, ("cut", HALF), fault, fault])
    get(tries=4)
    assert_whole(part)
    assert ["Range" in headers for headers in kaggle.gets] == [False, False, True, True, True]
    assert f"the server answered {fault}" in capfd.readouterr().err


def test_a_long_download_may_break_more_often_than_it_may_fail_in_a_row(kaggle, part, get):
    kaggle.faults.extend(("cut", len(DATA) * n // 8) for n in range(1, 8))
    get()
    assert_whole(part)


def test_waits_double_and_retry_after_is_kept(kaggle, get, naps):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    kaggle.faults.extend([500, 500, (429, 7), (503, date), 500])
    get(tries=9)
    assert naps[:3] == [0.001, 0.002, 7] and 90 < naps[3] <= 100 and naps[4] == 0.016


def test_a_server_that_asks_for_an_hour_is_left_alone(kaggle, get, naps):
    kaggle.faults.append((429, 3600))
    with pytest.raises(UserError, match=r"^Kaggle asks to wait 3600 s \(the server answered 429\)"):
        get()
    assert not naps


def test_tries_run_out_with_a_sentence_and_the_next_call_goes_on(kaggle, part, get):
    kaggle.faults.extend([("cut", HALF), 500, 500])
    with pytest.raises(UserError, match="^the request to Kaggle failed 3 times in a row, the last time "
                       "with: the server answered 500; run the same command again, it goes on where it stopped$"):
        get()
    have = part.size()
    assert have > HALF - preprocess.fetching.download.CHUNK and not part.whole.exists()
    get()
    assert_whole(part)
    assert kaggle.gets[-1]["Range"] == f"bytes={have}-"


def test_a_server_that_is_not_there_is_a_sentence_without_its_address(part, tmp_path, capfd):
    request = requests.Request("GET", f"http://127.0.0.1:9/x?X-Goog-Signature={SIGNATURE}").prepare()
    with pytest.raises(UserError, match=r"no usable answer \(ConnectionError\)") as error:
        download(part, lambda: request, tries=2, first_wait=0.001)
    assert SIGNATURE not in str(error.value) + capfd.readouterr().err


def half(kaggle: Kaggle, part: PartFile, get: Callable) -> None:
    """Leave the first half, as a call that was killed would."""
    kaggle.faults.append(("cut", HALF))
    with pytest.raises(UserError):
        get(tries=1)
    assert part.size() > 0


@pytest.mark.parametrize("change", [
    {"data": OTHER}, {"data": TINY}, {"etag": '"v2"'}, {"modified": "Thu, 02 Jul 2020 00:00:00 GMT"},
    {"etag": "", "modified": ""}, {"sized": False},
], ids=["larger", "smaller", "etag", "modified", "nothing to compare", "no size"])
def test_a_file_that_changed_starts_anew(kaggle, part, get, capfd, change):
    if change.get("etag") == "":
        vars(kaggle).update(change)
    half(kaggle, part, get)
    if "data" in change:
        kaggle.serve(change.pop("data"), '"v2"')
    vars(kaggle).update(change)
    kaggle.ranges = kaggle.sized
    get()
    assert_whole(part, kaggle.data)
    assert "photos.zip starts anew after 1.6 MB: the server has another file now, or does not say which" \
        in capfd.readouterr().err


def test_without_ranges_it_starts_anew(kaggle, part, get, capfd):
    half(kaggle, part, get)
    kaggle.ranges = False
    get()
    assert_whole(part)
    assert "photos.zip starts anew after 1.6 MB: the server does not resume" in capfd.readouterr().err


def test_an_answer_that_begins_elsewhere_is_not_appended(kaggle, part, get):
    half(kaggle, part, get)
    kaggle.faults.append(("shift", None))
    get()
    assert_whole(part)


def test_without_ranges_the_tries_are_bounded(kaggle, get):
    """The bytes that come again after each cut are nothing new."""
    kaggle.ranges = False
    kaggle.faults.extend([("cut", HALF)] * 9)
    with pytest.raises(UserError, match="failed 3 times in a row"):
        get()
    assert len(kaggle.gets) == 1 + 2 + 2  # a request for the rest, which it ignores, and one for all


def test_bytes_of_unknown_origin_are_not_trusted(kaggle, part, get):
    part.bytes.write_bytes(bytes(HALF))
    get()
    assert_whole(part)


def test_a_whole_part_is_not_fetched_again(kaggle, part, get):
    """As a kill during the check leaves it."""
    part.bytes.write_bytes(DATA)
    write_record(part.record, RECORD._replace(modified=kaggle.modified))
    kaggle.faults.append(("cut", 1))
    get(tries=1)
    assert_whole(part)


def test_a_whole_part_of_another_version_is(kaggle, part, get):
    """Also where its size is the same and no hash would tell."""
    part.bytes.write_bytes(bytes(len(DATA)))
    write_record(part.record, RECORD._replace(etag='"v0"'))
    kaggle.hash = ""
    get()
    assert_whole(part)


@pytest.mark.parametrize("damage, fault", [("md5", "its MD5 differs"), ("crc32c", "its CRC32C differs"),
                                           ("zip", "it has no zip directory at its end")])
def test_wrong_bytes_never_get_the_name(kaggle, part, get, damage, fault):
    if damage in kaggle.hash:
        kaggle.hash = next(text for text in kaggle.hash.split(",") if text.startswith(damage))
        kaggle.data = DATA[:HALF] + bytes([DATA[HALF] ^ 1]) + DATA[HALF + 1:]
    else:
        kaggle.serve(DATA[:-30], '"v2"')
    with pytest.raises(UserError, match=f"^photos.zip was damaged on its way .{fault}.*. and is deleted: run the same "
                                        f"command again$"):
        get()
    assert not list(part.whole.parent.iterdir())


def test_a_file_without_size_and_hash_comes_too(kaggle, part, get):
    kaggle.sized, kaggle.hash = False, ""
    assert get() == ServedFile(None, kaggle.etag, kaggle.modified, None, None)
    assert_whole(part)


def free(monkeypatch, count: int) -> None:
    usage = SimpleNamespace(free=count)
    monkeypatch.setattr(preprocess.fetching.download.shutil, "disk_usage", lambda path: usage)


def test_a_disk_that_is_too_small_is_said_before_the_first_byte(kaggle, part, get, monkeypatch):
    free(monkeypatch, 1_000_000)
    with pytest.raises(UserError, match=r"^photos.zip needs 3 MB more, but \S+ has 1 MB free: make space or choose "
                       "another --out, and run the same command again$"):
        get()
    assert not list(part.whole.parent.iterdir())


def test_what_is_there_needs_no_space(kaggle, part, get, monkeypatch):
    half(kaggle, part, get)
    free(monkeypatch, HALF + 300_000)
    get()
    assert_whole(part)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_a_sentence(tmp_path, code):
    with pytest.raises(UserError, match="no room left for "):
        with report_full_disk(tmp_path):
            raise OSError(code, "No space")
    with pytest.raises(PermissionError), report_full_disk(tmp_path):
        raise PermissionError(errno.EACCES, "no")


small = st.integers(0, 9500)
events = st.tuples(st.just("fault"), st.tuples(st.just("cut"), small) | st.sampled_from([403, 500, 503])) \
    | st.tuples(st.just("new version"), st.integers(0, 5)) | st.tuples(st.just("lose the end"), small) \
    | st.tuples(st.just("lose the record"), st.none())


def befall(kaggle: Kaggle, part: PartFile, event: str, detail: Any) -> None:
    """Let one thing happen to the server, to what is on the disk, or to a call that a fault ends."""
    if event == "new version":
        kaggle.serve(zip_bytes(detail, 2000 + detail), f'"v{detail}"')
    elif event == "lose the record":
        part.record.unlink(missing_ok=True)
    elif event == "lose the end":
        part.bytes.write_bytes(part.bytes.read_bytes()[:detail] if part.bytes.exists() else b"")
    else:
        kaggle.faults = deque([detail] * 2)
        with suppress(UserError):
            download(part, kaggle.request, tries=1)
        kaggle.faults.clear()


@settings(max_examples=60)
@given(story=st.lists(events, max_size=8), ranges=st.booleans())
def test_whatever_happened_the_end_is_what_the_server_has(tmp_path_factory, story, ranges):
    part = PartFile(tmp_path_factory.mktemp("wild") / "photos.zip")
    with running() as kaggle, pytest.MonkeyPatch.context() as patch:
        patch.setattr(preprocess.fetching.download, "CHUNK", 512)
        kaggle.ranges = ranges
        kaggle.serve(TINY, '"v"')
        for event, detail in story:
            befall(kaggle, part, event, detail)
            if part.whole.exists():  # a cut behind the end
                break
        else:
            download(part, kaggle.request, tries=1)
        assert_whole(part, kaggle.data)


@settings(max_examples=25)
@given(st.builds(ServedFile, *[st.none() | st.integers(0)] + [st.none() | st.text()] * 4))
def test_a_record_is_read_as_it_was_written(tmp_path_factory, served):
    path = tmp_path_factory.mktemp("record") / "x.json"
    write_record(path, served)
    assert read_record(path) == served


@settings(max_examples=50)
@given(st.binary() | st.sampled_from([b"{}", b"[]", b"null", b'{"size": 1}']))
def test_a_file_that_is_no_record_is_none(tmp_path_factory, junk):
    path = tmp_path_factory.mktemp("record") / "x.json"
    assert read_record(path) is None
    path.write_bytes(junk)
    assert read_record(path) is None
