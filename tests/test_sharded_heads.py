"""Classes spread over 2 and 3 ranks (gloo), against one process that holds all; in float64."""
import importlib.util
from pathlib import Path

import pytest
import torch

from arcshard.console import UserError
from arcshard.distributed import World
from model.sharding import ClassShard

spec = importlib.util.spec_from_file_location("sharded_ranks", Path(__file__).with_name("sharded_ranks.py"))
ranks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ranks)
ALONE = World(0, 1, torch.device("cpu"))
EXACT = {"rtol": 1e-9, "atol": 1e-12}
ROUNDED = {"rtol": 1e-4, "atol": 1e-6, "check_dtype": False}  # float32 beside float64


@pytest.fixture(scope="module", params=[2, 3])
def found(request, tmp_path_factory, on_ranks):
    """What each rank found."""
    out = tmp_path_factory.mktemp("ranks")
    for name, make in ranks.OPTIMIZERS.items():
        torch.save(ranks.train_and_save(make, ALONE), out / f"{name}.pt")
    done = on_ranks(request.param, "tests/sharded_ranks.py", out)
    assert done.returncode == 0, done.stderr
    return [torch.load(out / f"{request.param}-{rank}.pt") for rank in range(request.param)]


@pytest.mark.parametrize("name", [name for name in ranks.CASES if name != "one class left"])
def test_loss_and_gradients_are_those_of_one_process(found, name):
    head = ranks.head_of(name)
    loss, x_grad, weight_grad, scale_grad = ranks.loss_and_gradients(head, *ranks.photos(name))
    losses, x_grads, weight_grads, scale_grads = zip(*(rank[name] for rank in found))
    torch.testing.assert_close(torch.stack(losses).mean(), loss, **EXACT)
    torch.testing.assert_close(torch.cat(x_grads) / len(found), x_grad, **EXACT)  # each is of its own rank's mean
    for of_rank in weight_grads:
        torch.testing.assert_close(of_rank, weight_grad, **EXACT)
    if scale_grad is not None:
        torch.testing.assert_close(torch.stack(scale_grads).mean(), scale_grad, **EXACT)
    for rank in found:
        torch.testing.assert_close(rank[f"{name}, state"], head.state_dict(), **EXACT)


def test_it_compiles_without_a_graph_break_talk_between_ranks_included(found):
    for rank in found:
        torch.testing.assert_close(rank["compiled"], rank["adaface"], **ROUNDED)
        torch.testing.assert_close(rank["compiled, state"], rank["adaface, state"], **ROUNDED)


def test_embedding_stats_and_class_means_are_those_of_one_process(found):
    figures, weight = ranks.seen(ALONE)
    for rank in found:
        assert rank["seen"][0] == pytest.approx(figures, rel=1e-5)
        torch.testing.assert_close(rank["seen"][1], weight, rtol=1e-5, atol=1e-7)  # the means are float32


def test_all_ranks_share_the_first_ones_values(found):
    for rank in found:
        assert [bool((values == 0).all()) for values in rank["shared"]] == [True, True]


def test_all_ranks_agree_whether_an_update_overflowed_or_a_loss_was_bad(found):
    assert [rank["scaled"] for rank in found] == [([True, False], 32768.0)] * len(found)


def test_each_rank_holds_its_part(found):
    held = [rank["unequal"][0] for rank in found]
    assert sum(held) == ranks.CLASSES and max(held) - min(held) == 1


@pytest.mark.parametrize("name", ranks.OPTIMIZERS)
def test_training_is_that_of_one_process_and_goes_on_with_another_number_of_ranks(found, name):
    """Clipped steps; W ranks continue what one saved, and one what W saved."""
    make = ranks.OPTIMIZERS[name]
    alone = ranks.train_and_save(make, ALONE)
    continued = ranks.train_and_save(make, ALONE, alone)
    loose = {"rtol": 1e-6, "atol": 1e-9}
    for rank in found:
        torch.testing.assert_close(rank[name], alone, **loose)
        torch.testing.assert_close(rank[f"{name}, continued"], continued, **loose)
        torch.testing.assert_close(ranks.train_and_save(make, ALONE, rank[name]), continued, **loose)


def test_classes_that_are_not_drawn_have_no_gradient_and_a_batchs_own_always_take_part(found):
    _, labels = ranks.photos("one class left")
    gradient = found[0]["one class left"][2]
    assert (gradient[labels.unique()].norm(dim=1) > 0).all()


@pytest.mark.parametrize("size", range(1, 8))
def test_parts_are_contiguous_and_nearly_equal(size):
    shards = [ClassShard(23, rank, size) for rank in range(size)]
    classes = [number for shard in shards for number in range(23)[shard.classes]]
    assert classes == list(range(23)) and max(shards[0].counts()) - min(shards[0].counts()) <= 1


def test_more_ranks_than_classes_are_refused():
    with pytest.raises(UserError, match="there are 3 classes for 4 ranks, .*: start fewer"):
        ClassShard(3, 0, 4)
