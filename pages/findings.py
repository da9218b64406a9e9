"""What a person wants to know of a run, in sentences: pure functions over the figures that it logged."""
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

Scores = dict[str, dict[str, float | None]]
"""{split: {metric: value}}, as in eval.json."""
LogLines = Sequence[dict[str, Any]]
"""Lines of metrics.jsonl and validation.jsonl."""

RECALL, GAP = "recall@1", "gap"
NOTICED = 0.02  # of recall@1: a smaller change may be chance on some hundred queries
QUALITY = ((0.9, "Very good"), (0.75, "Good"), (0.5, "Fair"), (0.0, "Poor"))
"""Least recall@1 -> what the page calls it."""
WAITING = 0.1  # share of the time from which a faster loader pays
NO_LOG = ("This run has no log of training (metrics.jsonl): either it was lost, or python -m training made the run "
          "from others, whose reports have curves and speed.")


@dataclass(frozen=True)
class RunFigures:
    """The logged figures of a run."""
    split: str
    """Where the headline figures come from."""
    own: Collection[str]
    """Splits, of those below, of the dataset that the run was trained on."""
    untrained: Scores
    """Empty if never measured."""
    trained: Scores
    metrics: LogLines
    """Lines of metrics.jsonl, then those of validation.jsonl; empty for a run that train.py did not write."""
    generalized: bool
    """Whether PCA for unseen landmarks is part of the embedding."""

    def logged(self, key: str) -> list[Any]:
        """The key's values that are not null, in the order of the logs."""
        return [line[key] for line in self.metrics if line.get(key) is not None]

    @property
    def headline(self) -> list[str]:
        """The splits that sentences are about: one that the run was trained beside, and all of other data."""
        return [split for split in self.trained if split == self.split or split not in self.own]

    def gain(self, split: str) -> float | None:
        """In recall@1, from before training; None where one of both was not measured."""
        before, after = (scores.get(split, {}).get(RECALL) for scores in (self.untrained, self.trained))
        return None if before is None or after is None else after - before


def learned(run: RunFigures) -> list[str]:
    """Did it learn? A sentence for each headline split that was measured before and after training."""
    sentences = []
    for split in run.headline:
        gain, after = run.gain(split), run.trained[split].get(RECALL)
        if gain is not None and after is not None:
            verdict = "Yes" if gain >= NOTICED else "It got worse" if gain <= -NOTICED else "Hardly"
            sentences.append(f"{verdict}, on {_about(run, split)}: the nearest photo shows the right landmark for "
                             f"{_percent(after)} of the queries, and did for {_percent(after - gain)} before training.")
    return sentences or ["Unknown: the network was not measured before training (evaluate.py --untrained does)."]


def quality(run: RunFigures) -> list[str]:
    """Is it good? A sentence for each headline split."""
    sentences = []
    for split in run.headline:
        recall, gap = run.trained[split].get(RECALL), run.trained[split].get(GAP)
        if recall is not None:
            word = next(word for least, word in QUALITY if recall >= least)
            ranked = "" if gap is None else f" GAP, which also asks whether confident answers are right, is {gap:.3f}."
            sentences.append(f"{word} on {_about(run, split)}: the nearest photo is right for {_percent(recall)} of "
                             f"the queries.{ranked}")
    return sentences or ["Unknown: recall@1 was not measured."]


def speed(run: RunFigures) -> list[str]:
    """What limits the speed?"""
    wait, seconds = wait_share(run.metrics), training_seconds(run.metrics)
    if wait is None:
        return ["Unknown: the log has no line on it."] if run.metrics else [NO_LOG]
    what = (f"The loader: {_percent(wait)} of the time went by waiting for data. One that keeps up would make training "
            f"{1 / (1 - min(wait, .99)):.2f} times as fast." if wait >= WAITING else
            f"The network: computing took {_percent(1 - wait)} of the time, waiting for data {_percent(wait)}. A "
            "faster loader would gain no more than that.")
    return [what, f"Training took {_duration(seconds)} without validation and checkpoints."] if seconds else [what]


# What to try next. Each rule says what and why, or None where it does not apply.


@dataclass(frozen=True)
class Advice:
    """Something to try."""
    what: str
    why: str
    command: str = ""


Rule = Callable[[RunFigures], Advice | None]


def advice(run: RunFigures) -> list[Advice]:
    """What the rules say about the run, the gravest first."""
    return [found for rule in RULES if (found := rule(run))]


def collapsed(run: RunFigures) -> Advice | None:
    """The loss ends near that of an embedding that maps all photos to one point."""
    lines = [line for line in run.metrics if line.get("loss") is not None and line.get("collapsed_loss")]
    if not lines or lines[-1]["loss"] < 0.9 * lines[-1]["collapsed_loss"]:
        return None
    return Advice("Find out why nothing is learned: lower train.lr, take pretrained weights, or head.scale auto; "
                  "docs/arcface-convergence.md has more.",
                  f"The loss ends at {lines[-1]['loss']:.2f}; {lines[-1]['collapsed_loss']:.2f} is what an embedding "
                  "has that tells no photo from another.")


def bad_updates(run: RunFigures) -> Advice | None:
    count = sum(run.logged("skipped"))
    return Advice("Lower train.lr or head.margin.",
                  f"{_count(count, 'update was', 'updates were')} left out, as loss or gradient was not finite; "
                  "bad-batches.jsonl names their photos.") if count else None


def damaged_photos(run: RunFigures) -> Advice | None:
    count = sum(run.logged("replaced"))
    return Advice("List the damage, and copy or pack the dataset again.",
                  f"{_count(count, 'photo', 'photos')} could not be read in training and had to be replaced by "
                  "others.", "python -m shards verify DATASET") if count else None


def forgotten(run: RunFigures) -> Advice | None:
    """Training made some split worse."""
    worse = [split for split in run.trained if (gain := run.gain(split)) is not None and gain <= -NOTICED]
    if not worse:
        return None
    return Advice("Lower train.backbone_lr, or train for fewer epochs.",
                  f"Before training the nearest photo was right more often ({', '.join(worse)}): the network lost what "
                  "its first weights knew.")


def waiting(run: RunFigures) -> Advice | None:
    wait = wait_share(run.metrics)
    if wait is None or wait < WAITING:
        return None
    return Advice("Speed up loading: --loader.tune true, more loader.num_threads, or photos packed with a smaller "
                  "--short-side.", f"{_percent(wait)} of the time went by waiting for data.")


def still_rising(run: RunFigures) -> Advice | None:
    """Recall on val rose in the last quarter of its lines; four lines are the fewest that have one."""
    recalls = _val_recalls(run)
    if len(recalls) < 4 or (rise := recalls[-1] - recalls[-1 - len(recalls) // 4]) < NOTICED:
        return None
    return Advice("Train for more epochs (train.epochs).",
                  f"Val recall@1 by class centers still rose from {_percent(recalls[-1] - rise)} to "
                  f"{_percent(recalls[-1])} in the last quarter of training.")


def past_its_best(run: RunFigures) -> Advice | None:
    recalls = _val_recalls(run)
    if not recalls or max(recalls) - recalls[-1] < NOTICED:
        return None
    return Advice("Train for fewer epochs or with stronger views (view.area, view.randaugment); train.best keeps the "
                  "best checkpoint.", f"Val recall@1 by class centers fell from {_percent(max(recalls))} to "
                                 f"{_percent(recalls[-1])}: the network learns its training photos by heart.")


def dead_centers(run: RunFigures) -> Advice | None:
    shares = run.logged("dead_centers")
    if not shares or shares[-1] < 0.1:
        return None
    return Advice("Try train.clip_by adaptive with train.clip 0.01, or train longer.",
                  f"{_percent(shares[-1])} of the class centers are nearest to no val photo: those classes are not "
                  "learned yet.")


def unseen_behind(run: RunFigures) -> Advice | None:
    """Other data is answered clearly worse than the run's own, and PCA was not tried."""
    own = run.trained.get(run.split, {}).get(RECALL) if run.split in run.own else None
    others = {split: recall for split in run.headline
              if split not in run.own and (recall := run.trained[split].get(RECALL)) is not None}
    if own is None or not others or run.generalized or (least := min(others.values())) > own - 0.05:
        return None
    return Advice("If it will be asked for landmarks that training did not see, let PCA join the embedding.",
                  f"The nearest photo is right for {_percent(own)} of the queries on its own landmarks, for "
                  f"{_percent(least)} on other data. PCA keeps what tells unseen landmarks apart.",
                  "python -m training generalize RUN --data DATASET --out NEW_RUN")


def without_landmark(run: RunFigures) -> Advice | None:
    """Queries without landmark cost GAP."""
    scores = run.trained.get(run.split, {})
    gap, landmarks_only = scores.get(GAP), scores.get("gap_landmark_only")
    if gap is None or landmarks_only is None or landmarks_only - gap < 0.05:
        return None
    return Advice("Measure a pipeline that lowers answers to photos without landmark.",
                  f"Confident answers to photos without landmark cost GAP: it is {gap:.3f}, and {landmarks_only:.3f} "
                  "without those photos.",
                  "python evaluate.py --run RUN --data DATASET --pipeline configs/pipelines/arcshard.yaml --ablate")


def never_before(run: RunFigures) -> Advice | None:
    missing = [split for split in run.headline if not run.untrained.get(split)]
    return Advice("Measure the network as it was before training.",
                  "What training changed is known only beside the figures from before it.",
                  "python evaluate.py --run RUN --data DATASET --untrained") if missing and run.metrics else None


RULES: tuple[Rule, ...] = (collapsed, bad_updates, damaged_photos, forgotten, waiting, still_rising, past_its_best,
                           dead_centers, unseen_behind, without_landmark, never_before)


# Figures from the log, and how they are said.


def wait_share(metrics: LogLines) -> float | None:
    """Mean share of step time spent waiting for data, in [0, 1]; the device's where logged. None if never measured."""
    key = "device_wait_share" if any("device_wait_share" in line for line in metrics) else "data_wait_share"
    shares = [line[key] for line in metrics if key in line]
    return sum(shares) / len(shares) if shares else None


def training_seconds(metrics: LogLines) -> float:
    """Seconds of the logged steps, by images and images/s; 0.0 if never measured."""
    seconds, position = 0.0, 0
    for line in metrics:
        if line.get("images_per_s"):
            seconds += (line["position"] - position) / line["images_per_s"]
            position = line["position"]
    return seconds


def _val_recalls(run: RunFigures) -> list[float]:
    """Of the last stage: another may have had other classes."""
    lines = [line for line in run.metrics if line.get("val_recall@1") is not None]
    return [line["val_recall@1"] for line in lines if line.get("stage") == lines[-1].get("stage")]


def _about(run: RunFigures, split: str) -> str:
    return (f"new photos of the landmarks that it was trained on ({split})" if split in run.own else
            f"data that it was not trained on ({split})")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _duration(seconds: float) -> str:
    return (f"{seconds:.0f} seconds" if seconds < 120 else
            f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours")
