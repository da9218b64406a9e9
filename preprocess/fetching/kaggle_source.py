"""Asks Kaggle where a competition's or a dataset's files lie, through the package kaggle.

Read from kaggle 2.2.4, which shapes the code below: importing it logs in at once (up to two requests), prints on stdout
and may exit; with VERBOSE=1 it prints the token; its requests have no time limit; its errors hold signed links.
"""
import io
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from types import FrameType
from typing import Any, NoReturn

import requests

from preprocess.fetching.kaggle_refusals import refuse, refuse_without_token
from preprocess.fetching.wanted import Wanted

TIME_LIMIT = 120.0  # seconds for logging in and asking


def ask(wanted: Wanted) -> requests.PreparedRequest:
    """A request that gets the file from its storage: valid for a while, and as secret as a token.

    Kaggle's redirect is followed, the body is not read. Raises UserError for what the user can mend (no token, a wrong
    one, rules not accepted, no such name) and requests.RequestException or TimeoutError for what may pass. Main thread
    only (signal.setitimer).
    """
    for variable in ("VERBOSE", "VERBOSE_OUTPUT"):
        os.environ.pop(variable, None)  # they make kaggle print the token
    try:
        with redirect_stdout(io.StringIO()), _time_limit(TIME_LIMIT):
            return _ask(wanted)
    except SystemExit:
        refuse_without_token(wanted)
    except requests.HTTPError as error:
        if error.response is not None:
            refuse(error.response, wanted)
        raise


def _ask(wanted: Wanted) -> requests.PreparedRequest:
    from kaggle import KaggleApi  # here, since it logs in
    api = KaggleApi()
    api.authenticate()  # again at each question: a token may expire during a long download
    with api.build_kaggle_client() as client:
        response = _question(client, wanted)
        response.close()
        return response.request


def _question(client: Any, wanted: Wanted) -> requests.Response:
    from kagglesdk.competitions.types.competition_api_service import (
        ApiDownloadDataFileRequest,
        ApiDownloadDataFilesRequest,
    )
    from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest
    if wanted.is_dataset:
        dataset = ApiDownloadDatasetRequest()
        dataset.owner_slug, dataset.dataset_slug = wanted.source.split("/")
        dataset.file_name = wanted.file
        return client.datasets.dataset_api_client.download_dataset(dataset)
    if wanted.file is None:
        everything = ApiDownloadDataFilesRequest()
        everything.competition_name = wanted.source
        return client.competitions.competition_api_client.download_data_files(everything)
    one = ApiDownloadDataFileRequest()
    one.competition_name, one.file_name = wanted.source, wanted.file
    return client.competitions.competition_api_client.download_data_file(one)


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in this block after `seconds`: kaggle's own requests would wait for ever."""
    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)  # again, since importing kaggle swallows the first
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
