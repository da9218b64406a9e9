"""Ask Kaggle for the address of a competition's or dataset's files, through the package kaggle.

What kaggle 2.2.4 does explains the code below: importing it logs in at once (up to two requests), prints to stdout and
may exit; with VERBOSE=1 it prints the token; its requests have no timeout; its errors contain signed links.
"""
import io
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import PurePosixPath
from types import FrameType
from typing import Any, NamedTuple, NoReturn
from urllib.parse import unquote, urlsplit

import requests

from arcshard.console import UserError


class KaggleFile(NamedTuple):
    """A competition ("landmark-recognition-2020") or a dataset ("owner/name"), whole (one zip) or one file of it."""

    source: str
    file: str | None = None

    @property
    def is_dataset(self) -> bool:
        return "/" in self.source

    @property
    def page(self) -> str:
        """Its page at Kaggle, where its name can be checked and its rules accepted."""
        return f"https://www.kaggle.com/{'datasets' if self.is_dataset else 'competitions'}/{self.source}"

    @property
    def name(self) -> str:
        """The file's name on disk, unless Kaggle serves it zipped."""
        return PurePosixPath(self.file).name if self.file else f"{self.source.rpartition('/')[2]}.zip"

    def name_at(self, url: str) -> str:
        """`name`, with .zip if `url` ends so, since the file then comes zipped; nothing else in `url` is trusted."""
        zipped = unquote(urlsplit(url).path).endswith(".zip")
        return f"{self.name}.zip" if zipped and not self.name.endswith(".zip") else self.name


def kaggle_file(competition: str, dataset: str | None, file: str | None) -> KaggleFile:
    """The dataset, or else the competition. Raises UserError for an impossible name."""
    for option, name, pattern in (("--competition", competition, r"[\w-]+"), ("--dataset", dataset, r"[\w-]+/[\w-]+")):
        if name is not None and not re.fullmatch(pattern, name):
            shape = "NAME" if option == "--competition" else "OWNER/NAME"
            raise UserError(f"{name!r} cannot be the name for {option}: copy {shape} from its page's address at Kaggle")
    if file is not None and PurePosixPath(file).name in ("", ".."):
        raise UserError(f"--file {file!r} names no file: copy a name from Kaggle's page, or leave it out to fetch all")
    return KaggleFile(dataset or competition, file)


# Kaggle's refusals as sentences. They contain nothing that a server sent, which could be a token or a signed link.

TOKEN_PAGE = "https://www.kaggle.com/settings/api"


def refuse_without_token(wanted: KaggleFile) -> NoReturn:
    """Raise the UserError for a failed login: no token at all, or one that Kaggle does not know."""
    from kagglesdk import get_access_token_from_env
    token, place = get_access_token_from_env()
    if token:
        _refuse_token(f"does not know the one of {place}")
    raise UserError(f"no Kaggle token was found: make one at {TOKEN_PAGE} (Generate New Token), put it into "
                    "~/.kaggle/access_token or the environment variable KAGGLE_API_TOKEN, "
                    f"{_consent(wanted)}, and run the same command again")


def refuse(response: requests.Response, wanted: KaggleFile) -> None:
    """Raise a UserError if trying again cannot help; a refusal by the storage may pass with a fresh link."""
    status = _status(response)
    if response.history or status in (408, 429) or status >= 500:
        return
    if status == 401:
        _refuse_token("refused the one that was found (401)")
    if status == 403:
        raise UserError(f"Kaggle gives you no access to {wanted.source} (403): {_consent(wanted)}, check the name, and "
                        "run the same command again")
    what = wanted.source if wanted.file is None else f"{wanted.source} with the file {wanted.file}"
    if status == 404:
        raise UserError(f"Kaggle has no {what} (404): copy --competition, --dataset and --file from {wanted.page}")
    raise UserError(f"Kaggle answered {status} to the request for {what}: check the names on {wanted.page}, or upgrade "
                    "the package kaggle")


def _refuse_token(fault: str) -> NoReturn:
    raise UserError(f"the Kaggle token is not valid: Kaggle {fault}; make a new one at {TOKEN_PAGE} (Generate New "
                    "Token), put it where the old one is (~/.kaggle or a KAGGLE_ variable), and run the same command "
                    "again")


def _consent(wanted: KaggleFile) -> str:
    if wanted.is_dataset:
        return f"see that {wanted.page} opens while you are logged in"
    return f"accept the rules on {wanted.page}/rules (Join or Late Submission)"


def _status(response: requests.Response) -> int:
    """The HTTP status, or the code in the JSON of a 200: kaggle raises for both."""
    if response.status_code != 200:
        return response.status_code
    found = re.search(r'"code"\s*:\s*(\d{3})\b', response.text)
    return int(found[1]) if found else 200


TIME_LIMIT = 120.0  # seconds for login and request


def ask(wanted: KaggleFile) -> requests.PreparedRequest:
    """A request that gets the file from its storage: valid for a while, and as secret as a token.

    Kaggle's redirect is followed, the body is not read. Raises UserError for what the user can fix (no token, a wrong
    one, rules not accepted, no such name), and requests.RequestException or TimeoutError for temporary faults. Main
    thread only (signal.setitimer).
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
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        if isinstance(error, requests.RequestException):
            raise
        raise requests.exceptions.InvalidJSONError from None  # kagglesdk trusts the JSON that it reads


def _ask(wanted: KaggleFile) -> requests.PreparedRequest:
    from kaggle import KaggleApi  # here, since it logs in
    api = KaggleApi()
    api.authenticate()  # for each request: a token may expire during a long download
    with api.build_kaggle_client() as client:
        response = _question(client, wanted)
        response.close()
        return response.request


def _question(client: Any, wanted: KaggleFile) -> requests.Response:
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
    """Raise TimeoutError in this block after `seconds`: kaggle's own requests would wait forever."""
    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)  # again, since importing kaggle swallows the first
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
