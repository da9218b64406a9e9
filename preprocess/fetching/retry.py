"""Try again what a network breaks: with growing waits, and not for ever."""
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import requests
from urllib3.exceptions import ReadTimeoutError

from arcshard.console import UserError

TRIES = 12  # in a row that bring nothing new: about six minutes without a network
FIRST_WAIT = 1.0  # seconds; doubles with each try
LONGEST_WAIT = 60.0
LONGEST_DEMAND = 900.0  # seconds of a server's Retry-After that are still waited for

T = TypeVar("T")


def persist(attempt: Callable[[], T], reached: Callable[[], int], tries: int = TRIES,
            first_wait: float = FIRST_WAIT) -> T:
    """Call `attempt` until it returns.

    `reached` says how many bytes are there; more than ever before starts the count of tries anew, so that a long
    download may break as often as it likes. Raises UserError after `tries` failures in a row, or where a server asks
    for more patience than LONGEST_DEMAND. The notes on stderr hold no text of an exception: it has the signed link.
    """
    best, failures = 0, 0
    while True:
        try:
            return attempt()
        except (requests.RequestException, TimeoutError) as error:
            reason, demand = cause(error), retry_after(error)
        if reached() > best:
            best, failures = reached(), 0
        failures += 1
        if failures == tries:
            raise UserError(f"the network must bring something within {tries} tries, but the last one ended with: "
                            f"{reason}; run the same command again, it goes on where it stopped")
        if demand > LONGEST_DEMAND:
            raise UserError(f"Kaggle asks for {demand:.0f} s of patience ({reason}): run the same command again then, "
                            "it goes on where it stopped")
        wait = max(demand, min(first_wait * 2 ** (failures - 1), LONGEST_WAIT))
        print(f"{reason}; try {failures + 1} of {tries} in {wait:.3g} s", file=sys.stderr)
        time.sleep(wait)


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
