"""The drawn classes: a pure function of the key, even, and always with the batch's own."""
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loader import draws
from model import ArcFace
from model.heads import draw_classes, mix64


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20))
def test_mix64_is_the_loaders(words):
    words = np.array(words, np.uint64)
    assert mix64(torch.from_numpy(words.view(np.int64))).numpy().view(np.uint64).tolist() == \
        draws.mix64(words).tolist()


@given(st.integers(0, 2**63 - 1), st.integers(1, 40), st.data())
def test_the_draw_rises_and_has_all_classes_of_the_batch(key, count, data):
    labels = torch.tensor(data.draw(st.lists(st.integers(0, count - 1), max_size=count)), dtype=torch.int64)
    held = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels))),
                        dtype=torch.bool)
    number = data.draw(st.integers(max(1, len(labels)), count))
    drawn = draw_classes(torch.tensor(key), 7, count, number, labels, held)
    assert len(drawn) == number and (drawn.diff() > 0).all() and 0 <= drawn.min() and drawn.max() < count
    assert set(labels[held].tolist()) <= set(drawn.tolist())
    assert torch.equal(drawn, draw_classes(torch.tensor(key), 7, count, number, labels, held))


def test_every_class_is_drawn_as_often_and_with_every_other():
    """Chi-square of the counts and of the pairs with class 0, over 4,000 keys."""
    none = torch.zeros(0, dtype=torch.int64)
    drawn = torch.zeros(4000, 20)
    for key in range(4000):
        drawn[key, draw_classes(torch.tensor(key), 0, 20, 5, none, none.bool())] = 1
    for chosen, share in ((drawn, 5 / 20), (drawn[drawn[:, 0] == 1, 1:], 4 / 19)):
        mean = len(chosen) * share
        assert ((chosen.sum(0) - mean) ** 2 / (mean * (1 - share))).sum() < 20 + 5 * math.sqrt(2 * 20)


def drawing(negatives, key=3):
    torch.manual_seed(0)
    head = ArcFace(8, 40, 20.0, 0.3, centers=2, smoothing=0.1, negatives=negatives).double()
    head.set_key(key)
    return head


def test_the_loss_is_that_of_a_head_which_has_the_drawn_classes_alone():
    head, x, labels = drawing(0.5), torch.randn(6, 8).double(), torch.tensor([0, 39, 7, 7, 20, 3])
    head(x, labels).backward()
    drawn = draw_classes(torch.tensor(3), 0, 40, 20, labels, labels >= 0)
    small = ArcFace(8, 20, 20.0, 0.3, centers=2, smoothing=0.1).double()
    with torch.no_grad():
        small.weight.copy_(head.weight.unflatten(0, (40, 2))[drawn].flatten(0, 1))
    loss = small(x, torch.searchsorted(drawn, labels))
    loss.backward()
    gradient = torch.zeros(40, 2, 8).double()
    gradient[drawn] = small.weight.grad.unflatten(0, (20, 2))
    torch.testing.assert_close(head(x, labels), loss)
    torch.testing.assert_close(head.weight.grad, gradient.flatten(0, 1))


def test_a_key_draws_the_same_again_and_another_key_others():
    x, labels = torch.randn(6, 8).double(), torch.tensor([0, 39, 7, 7, 20, 3])
    losses = [drawing(0.5, key)(x, labels).item() for key in (3, 3, 4)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("negatives, batch", [(0.01, 6), (1.0, 6), (0.5, 60)])
def test_a_batch_that_needs_more_than_the_share_has_room(negatives, batch):
    head, labels = drawing(negatives), torch.arange(batch) % 40
    assert torch.isfinite(head(torch.randn(batch, 8).double(), labels))
