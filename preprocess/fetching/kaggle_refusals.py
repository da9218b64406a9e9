"""Kaggle's refusals as sentences. None holds what a server sent: it could hold a token or a signed link."""
import re
from typing import NoReturn

import requests

from arcshard.console import UserError
from preprocess.fetching.wanted import Wanted

TOKEN_PAGE = "https://www.kaggle.com/settings/api"


def refuse_without_token(wanted: Wanted) -> NoReturn:
    """Raise the UserError for a log-in that failed: no token at all, or one that Kaggle does not know."""
    from kagglesdk import get_access_token_from_env
    token, place = get_access_token_from_env()
    if token:
        _refuse_token(f"does not know the one of {place}")
    raise UserError(f"Kaggle gives files to those who show a token, but none was found: make one at {TOKEN_PAGE} "
                    "(Generate New Token), put it into ~/.kaggle/access_token or the environment variable "
                    f"KAGGLE_API_TOKEN, {_consent(wanted)}, and run the same command again")


def refuse(response: requests.Response, wanted: Wanted) -> None:
    """Raise a UserError if trying again cannot help; a storage's refusal may pass with a fresh link."""
    status = _status(response)
    if response.history or status in (408, 429) or status >= 500:
        return
    if status == 401:
        _refuse_token("refused the one that was found (401)")
    if status == 403:
        raise UserError(f"{wanted.source} is for those who may have it, but Kaggle refused you (403): "
                        f"{_consent(wanted)}, check the name, and run the same command again")
    what = wanted.source if wanted.file is None else f"{wanted.source} with the file {wanted.file}"
    if status == 404:
        raise UserError(f"--competition, --dataset and --file must be names that Kaggle knows, but it has no {what} "
                        f"(404): take them from {wanted.page}")
    raise UserError(f"Kaggle must understand the question for {what}, but answered {status}: check the names on "
                    f"{wanted.page}, or upgrade the package kaggle")


def _refuse_token(fault: str) -> NoReturn:
    raise UserError(f"the token must be valid, but Kaggle {fault}: make a new one at {TOKEN_PAGE} (Generate New Token),"
                    " put it where the old one is (~/.kaggle or a KAGGLE_ variable), and run the same command again")


def _consent(wanted: Wanted) -> str:
    if wanted.is_dataset:
        return f"see that {wanted.page} opens while you are logged in"
    return f"accept the rules on {wanted.page}/rules (Join or Late Submission)"


def _status(response: requests.Response) -> int:
    """The HTTP status, or the code in the JSON of a 200: kaggle raises for both."""
    if response.status_code != 200:
        return response.status_code
    found = re.search(r'"code"\s*:\s*(\d+)', response.text)
    return int(found[1]) if found else 200
