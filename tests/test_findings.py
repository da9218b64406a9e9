"""What the report says of a run in sentences: each rule where it fires and where it does not."""
from dataclasses import replace

import pytest

from pages.findings import NO_LOG, RULES, RunFigures, advice, learned, quality, speed

FINE = [{"position": 1000, "loss": 1.0, "collapsed_loss": 9.0, "images_per_s": 10.0, "data_wait_share": 0.02,
         "skipped": 0, "replaced": 0, "stage": "main"},
        *({"position": 200 * i, "val_recall@1": recall, "dead_centers": 0.05, "stage": "main"}
          for i, recall in enumerate((0.5, 0.8, 0.9, 0.91, 0.91)))]


def run(*lines, test=(0.5, 0.9), other=(0.6, 0.88), generalized=False, **more):
    """A run of which nothing is to be said, but for recall@1 before and after, more log lines and figures of test."""
    before, after = ({"test": {"recall@1": test[i], "gap": 0.8}, "unseen test": {"recall@1": other[i], "gap": 0.7}}
                     for i in range(2))
    after["test"] |= {"gap_landmark_only": 0.82, **more}
    return RunFigures("test", ("val", "test"), before, after, [*FINE, *lines], generalized)


def without(run, *splits):
    """The run without these figures from before training."""
    return replace(run, untrained={split: figures for split, figures in run.untrained.items() if split not in splits})


def test_a_run_in_order_gets_no_advice():
    assert advice(run()) == []


def val(*recalls, stage="main"):
    return [{"position": 1000 + i, "val_recall@1": recall, "stage": stage} for i, recall in enumerate(recalls)]


FIRES = {
    "collapsed": (run({"position": 1001, "loss": 8.5, "collapsed_loss": 9.0}), "ends at 8.50; 9.00 is"),
    "bad_updates": (run({"position": 1001, "skipped": 1}), "1 update was left out"),
    "damaged_photos": (run({"position": 1001, "replaced": 1200}), "1,200 photos could not be read"),
    "forgotten": (run(other=(0.9, 0.87)), "right more often (unseen test)"),
    "waiting": (run({"position": 1001, "data_wait_share": 0.38}), "20.0 % of the time"),
    "still_rising": (run(*val(.3, .5, .6, .7, stage="next")), "from 60.0 % to 70.0 %"),
    "past_its_best": (run(*val(.91, .85)), "from 91.0 % to 85.0 %"),
    "dead_centers": (run({"position": 1001, "dead_centers": 0.4}), "40.0 % of the class centers"),
    "unseen_behind": (run(other=(0.6, 0.7)), "90.0 % of the queries on its own landmarks, for 70.0 %"),
    "without_landmark": (run(gap_landmark_only=0.9), "0.800, and 0.900 without"),
    "never_before": (without(run(), "unseen test"), "beside the figures from before"),
}


def test_every_rule_has_a_case():
    assert [rule.__name__ for rule in RULES] == list(FIRES)


@pytest.mark.parametrize("name", FIRES)
def test_a_rule_fires_alone_and_says_why(name):
    figures, why = FIRES[name]
    assert [rule.__name__ for rule in RULES if rule(figures)] == [name]
    found, = advice(figures)
    assert why in found.why and found.what.endswith(".")


@pytest.mark.parametrize("figures", [
    run({"position": 1001, "loss": 8.0, "collapsed_loss": 9.0}),  # learns, if slowly
    run({"position": 1001, "loss": None, "collapsed_loss": 9.0}),  # no good step
    run(other=(0.9, 0.89)),  # as good as before
    run({"position": 1001, "data_wait_share": 0.4, "device_wait_share": 0.01}),  # the GPU hardly waits
    run(*val(.2, .8, .9, .95, .95, stage="next")), run(*val(.5, .6, .7, stage="next")),  # at rest; too short to tell
    run(*val(.5, .5, stage="next")),  # other classes than those of the stage before
    run(other=(0.6, 0.7), generalized=True)])
def test_rules_keep_quiet_where_there_is_nothing(figures):
    assert advice(figures) == []


def test_whether_it_learned_is_said_of_seen_and_other_data():
    yes, hardly = learned(run(other=(0.7, 0.71)))
    assert yes.startswith("Yes, on new photos of the landmarks that it was trained on (test)")
    assert "right landmark for 90.0 % of the queries, and did for 50.0 % before" in yes
    assert hardly.startswith("Hardly, on data that it was not trained on (unseen test)")
    assert learned(run(test=(0.9, 0.5)))[0].startswith("It got worse")
    assert "--untrained" in learned(without(run(), "test", "unseen test"))[0]


@pytest.mark.parametrize("recall, word", [(.9, "Very good"), (.89, "Good"), (.5, "Fair"), (.49, "Poor"), (0, "Poor")])
def test_how_good_it_is_follows_recall(recall, word):
    said, _ = quality(run(test=(0.5, recall)))
    assert said.startswith(f"{word} on ") and "GAP" in said and "0.800" in said


def test_the_slower_of_loader_and_network_is_named():
    assert speed(run())[0].startswith("The network: computing took 98.0 %")
    assert speed(run())[1] == "Training took 100 seconds without validation and checkpoints."
    loader = speed(run({"position": 1001, "data_wait_share": 0.98}))[0]
    assert loader.startswith("The loader: 50.0 %") and "2.00 times as fast" in loader


def test_a_run_without_a_log_says_so():
    assert speed(RunFigures("test", ("test",), {}, {"test": {"recall@1": 0.9}}, [], True)) == [NO_LOG]
    assert advice(RunFigures("test", ("test",), {}, {"test": {"recall@1": 0.9}}, [], True)) == []
