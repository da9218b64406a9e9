"""Retry requests to Kaggle and its storage."""
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import requests
from urllib3.exceptions import ReadTimeoutError

from arcshard.console import UserError
from arcshard.retry import TRIES, Failure, retry

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds: 12 tries take about six minutes without a network
LONGEST_DEMAND = 900.0  # seconds of a server's Retry-After that are still waited for

T = TypeVar("T")


def retry_request(attempt: Callable[[], T], reached: Callable[[], int] = lambda: 0, tries: int = TRIES,
                  first_wait: float = FIRST_WAIT) -> T:
    """Call `attempt` until it returns; `reached` says how many bytes are there.

    Raises UserError after `tries` failures in a row, or where a server asks for a wait beyond LONGEST_DEMAND. The
    notes on stderr hold no text of an exception: it has the signed link.
    """
    def pause(failures: int, reason: str, seconds: float) -> None:
        if seconds > LONGEST_DEMAND:
            raise UserError(f"Kaggle asks to wait {seconds:.0f} s ({reason}): run the same command again then, it goes "
                            "on where it stopped")
        print(f"{reason}; try {failures + 1} of {tries} in {seconds:.3g} s", file=sys.stderr)
        time.sleep(seconds)

    return retry(attempt, _failure, pause, what="the request to Kaggle", tries=tries, progress=reached,
                 remedy="run the same command again, it goes on where it stopped", first_wait=first_wait,
                 longest_wait=LONGEST_WAIT)


def _failure(error: Exception) -> Failure:
    if not isinstance(error, (requests.RequestException, TimeoutError)):
        raise error
    return Failure(cause(error), retry_after(error))


def cause(error: Exception) -> str:
    """The failure in a few words, without addresses."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code}"
    silent = isinstance(error, (requests.Timeout, TimeoutError)) or isinstance([*error.args, 0][0], ReadTimeoutError)
    if silent:
        return "the server fell silent"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    return f"no usable answer ({type(error).__name__})"


def retry_after(error: Exception) -> float:
    """Seconds that the answer asks to wait (Retry-After in seconds or as a date, RFC 9110, 10.2.3), else 0."""
    response = getattr(error, "response", None)
    text = response.headers.get("Retry-After", "") if response is not None else ""
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
