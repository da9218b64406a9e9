"""A learned re-ranker: which of a query's first candidates is right, if any? 2nd place 2020's, by LightGBM."""
import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcshard.console import UserError
from arcshard.files import write_text
from arcshard.untrusted import parse_json
from retrieval.boosters import check_booster

FORMAT = "arcshard-reranker-1"
FOLDS = 5


@dataclass(frozen=True)
class Reranker:
    """Boosters by fold and seed. None of fold f has seen a query of it, neither to learn from nor to stop by."""
    boosters: list[list[str]]
    """FOLDS × seeds, LightGBM's text."""
    names: list[str]
    """Of the features, in order."""
    top: int
    """Candidates of each query that are re-ranked."""
    fitted_on: list[str]
    """Keys of the queries."""
    steps: str
    """YAML of the steps whose candidates they were."""

    def probabilities(self, features: NDArray[np.float64], keys: Sequence[str]) -> NDArray[np.float64]:
        """(Q, top + 1): of each candidate that it is right, and that none is.

        Args:
            features: (Q, F), F = len(names).
            keys: Q sample keys, or none. A query that was fitted on is judged by the boosters of its own fold alone,
                another by the mean of all.
        """
        lightgbm = import_lightgbm()
        by_fold = np.array([np.mean([lightgbm.Booster(model_str=text).predict(features, num_threads=1)
                                     for text in texts], axis=0)
                            for texts in self.boosters])
        judged, fitted_on = by_fold.mean(axis=0), set(self.fitted_on)
        for q, key in enumerate(keys):
            if key in fitted_on:
                judged[q] = by_fold[fold_of(key), q]
        return judged

    def save(self, path: Path) -> None:
        """Write JSON that appears whole; equal re-rankers give equal bytes."""
        fields = {"format": FORMAT, **asdict(self)}
        write_text(path, json.dumps({**fields, "sha256": _digest(fields)}, indent=1) + "\n")

    def check(self) -> None:
        """Raise ValueError, KeyError, TypeError or AttributeError for fields that no fitted re-ranker has."""
        texts = [text for fold in self.boosters for text in fold]
        if not (len(self.boosters) == FOLDS and all(self.boosters) and isinstance(self.steps, str)
                and all(isinstance(text, str) for text in (*self.names, *self.fitted_on))):
            raise ValueError("fields of other kinds")
        for text in texts:
            check_booster(text, len(self.names), self.top + 1)

    @classmethod
    def load(cls, path: Path) -> "Reranker":
        """What `save` wrote, or an older version, without a hash. Raises UserError for a missing and any other file."""
        if not path.is_file():
            raise UserError(f"there is no re-ranker at {path}: fit one with python -m retrieval rerank")
        try:
            fields = parse_json(path.read_bytes())
            if (digest := fields.pop("sha256", None)) and digest != _digest(fields):
                raise UserError(f"{path} was changed after it was fitted: restore it, or fit it again with python -m "
                                "retrieval rerank")
            if fields.pop("format") == FORMAT:
                reranker = cls(**fields)
                reranker.check()
                return reranker
        except (ValueError, AttributeError, KeyError, TypeError):
            pass
        raise UserError(f"{path} is no re-ranker of format {FORMAT}: fit it again with python -m retrieval rerank")


def _digest(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def fold_of(key: str) -> int:
    """0 to FOLDS - 1, by the key's bytes alone."""
    return zlib.crc32(key.encode()) % FOLDS


def import_lightgbm() -> Any:
    """The module. Raises UserError if it is not installed."""
    try:
        import lightgbm
    except ImportError:
        raise UserError("re-ranking needs LightGBM, which is not installed: pip install 'arcshard[rerank]'") from None
    return lightgbm
