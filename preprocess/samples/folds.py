"""Stratified k folds in time that does not grow with samples × classes."""
import numpy as np
import pandas as pd

from arcshard.console import UserError


def stratified_folds(labels: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Fold 0 … k-1 of each sample, int64 (N,), for int labels (N,): each class is spread evenly over them.

    The folds are those of scikit-learn's StratifiedKFold(k, shuffle=True, random_state=seed), which compares
    all samples with each class in turn (27,756 classes: minutes) and refuses or warns when a class has fewer
    than k. Raises UserError for k outside 2 … N.
    """
    if not 2 <= k <= len(labels):
        raise UserError(f"--folds must be 2 to the number of images ({len(labels):,}), not {k}")
    codes, classes = pd.factorize(labels)  # classes in order of appearance, as scikit-learn takes them
    by_class = np.argsort(codes, kind="stable")
    # Position p of the samples sorted by class goes to fold p mod k, so folds differ by at most one sample a
    # class.
    dealt = [np.bincount(codes[by_class][fold::k], minlength=len(classes)) for fold in range(k)]
    random = np.random.RandomState(seed)
    folds = np.empty(len(labels), np.int64)
    end = 0
    for counts in np.stack(dealt, axis=1):
        of_class = np.repeat(np.arange(k), counts)
        random.shuffle(of_class)
        folds[by_class[end:end + len(of_class)]] = of_class
        end += len(of_class)
    return folds
