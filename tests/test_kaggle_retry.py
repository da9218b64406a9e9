"""kaggle/retry.py: how long to wait, and what to call a failure (the loop itself: test_download.py)."""
import pytest
import requests
from urllib3.exceptions import ReadTimeoutError

from preprocess.fetching.retry import cause, retry_after


def refusal(status: int, wait: str = "") -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    response.headers["Retry-After"] = wait
    return requests.HTTPError("https://storage/?X-Goog-Signature=secret", response=response)


@pytest.mark.parametrize("text", ["", "soon", "-5", "1e9", "Wed, 01 Jul 2020 00:00:00 GMT",
                                  "Wed, 01 Jul 2020 00:00:00"])
def test_a_retry_after_in_the_past_or_unreadable_is_no_wait(text):
    assert retry_after(refusal(503, text)) == 0


def test_an_error_without_an_answer_asks_for_no_wait():
    assert retry_after(TimeoutError()) == retry_after(requests.ConnectionError()) == 0


@pytest.mark.parametrize("error, words", [
    (TimeoutError(), "the server fell silent"),
    (requests.ReadTimeout("https://storage/?X-Goog-Signature=secret"), "the server fell silent"),
    (requests.ConnectionError(ReadTimeoutError(None, "secret", "Read timed out.")), "the server fell silent"),
    (requests.exceptions.ChunkedEncodingError("secret"), "the connection broke off"),
    (requests.ConnectionError("secret"), "no usable answer (ConnectionError)"),
    (requests.ConnectionError(), "no usable answer (ConnectionError)"),
    (refusal(503), "the server answered 503"),
], ids=lambda value: type(value).__name__)
def test_a_failure_is_named_without_its_text(error, words):
    assert cause(error) == words
