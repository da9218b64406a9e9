"""Try again what a network breaks: with waits that double, and not forever."""
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from arcshard.console import UserError

TRIES = 12  # failures in a row, without any progress, before giving up

T = TypeVar("T")


class Failure(NamedTuple):
    """Why a try failed, in a few words, and the seconds that the server asks to wait."""

    reason: str
    wait: float = 0.0


def retry(attempt: Callable[[], T], failure_of: Callable[[Exception], Failure],
          pause: Callable[[int, str, float], None], *, what: str, remedy: str, first_wait: float, longest_wait: float,
          tries: int = TRIES, progress: Callable[[], int] = lambda: 0) -> T:
    """Call `attempt` until it returns.

    Args:
        failure_of: describes an exception; raises it again if another try cannot help.
        pause: waits; gets the number of failures in a row, the reason of the last, and seconds.
        what, remedy: beginning and end of the sentence when tries run out.
        first_wait, longest_wait: seconds; the wait doubles with each failure.
        progress: bytes that have arrived; more than ever before starts the count of failures anew, so that a long
            download may break as often as it likes.

    Raises UserError after `tries` failures in a row.
    """
    best, failures = 0, 0
    while True:
        try:
            return attempt()
        except Exception as error:  # each protocol's package has its own
            failure = failure_of(error)
        if (now := progress()) > best:
            best, failures = now, 0
        failures += 1
        if failures == tries:
            raise UserError(f"{what} failed {tries} times in a row, the last time with: {failure.reason}; {remedy}")
        pause(failures, failure.reason, max(failure.wait, min(first_wait * 2 ** (failures - 1), longest_wait)))
