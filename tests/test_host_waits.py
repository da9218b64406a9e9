"""A training step on CUDA as far as no GPU is needed: fake tensors (shape and device, no values) go all its way.

What would make the host wait is then an error: torch raises where a value is read (item, nonzero), and `OnDevice` where
a tensor is made on the CPU, which must next be copied. What only a GPU can show is in test_gpu.py.
"""
from collections import Counter
from contextlib import contextmanager
from itertools import chain

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.autograd.function import BackwardCFunction
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from arcshard.distributed import World
from loader import Batch
from model import ArcFace
from model.embedder import ModelConfig, build_embedder
from model.head_config import HEADS
from model.loss import CUDA_CHUNK
from model.margins import log_weights, power_margins
from training.config import TrainConfig
from training.log import MetricsLog
from training.optim import LossScale, build_optimizer, clip, step_unless
from training.step import KeptBuffers, Step, poison

OPTIONS = {
    "plain": {}, "smoothing": {"smoothing": 0.1}, "focal": {"focal": 2.0}, "learned scale": {"learn_scale": True},
    "sub-centers": {"centers": 3}, "straight-through": {"straight_through": True}, "drawn": {"negatives": 0.3},
    "class sizes": {"margin_factors": power_margins(torch.arange(1, 301), 0.5, 0.05, 0.25),
                    "class_weights": log_weights(torch.arange(1, 301))},
    "easy": {"easy": True},
    "all": {"smoothing": 0.1, "focal": 2.0, "learn_scale": True, "centers": 3, "negatives": 0.3,
            "class_weights": log_weights(torch.arange(1, 301))}}


class OnDevice(TorchDispatchMode):
    """Counts the operations; AssertionError at one that takes or makes a tensor of the CPU."""

    def __init__(self):
        super().__init__()
        self.names = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        # SGD's kernel changes its arguments in place and has no form for fake tensors (torch 2.14)
        out = None if func.name() == "aten::_fused_sgd_" else func(*args, **kwargs or {})
        self.names[func.name()] += 1
        devices = {leaf.device.type for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)}
        assert devices <= {"cuda"}, f"{func.name()} on {devices}"
        return out


@contextmanager
def on_fake_cuda():
    with FakeTensorMode(allow_non_fake_inputs=False), OnDevice() as watch:
        yield watch


def moved(module):
    """The module with fake tensors on CUDA in place of its own."""
    for layer in module.modules():
        for name, p in layer.named_parameters(recurse=False):
            layer._parameters[name] = nn.Parameter(torch.empty(p.shape, dtype=p.dtype, device="cuda"), p.requires_grad)
        for name, b in layer.named_buffers(recurse=False):
            layer._buffers[name] = torch.empty(b.shape, dtype=b.dtype, device="cuda")
    return module


def backward(loss, gradient):
    """loss.backward(gradient), node by node: torch's engine would ask the driver for its streams."""
    after, todo = {}, [loss.grad_fn]
    while todo:
        node = todo.pop()
        if node not in after:
            after[node] = node.next_functions
            todo += [nearer for nearer, _ in after[node] if nearer]
    awaited = Counter(nearer for nearer, _ in chain.from_iterable(after.values()))
    arrived, ready = {node: [None] * len(node._input_metadata) for node in after}, [loss.grad_fn]
    arrived[loss.grad_fn][0] = gradient
    while ready:
        node = ready.pop()
        if hasattr(node, "variable"):
            node.variable.grad, = arrived[node]
            continue
        out = (node.apply if isinstance(node, BackwardCFunction) else node)(*arrived[node])
        for (nearer, place), grad in zip(after[node], out if isinstance(out, tuple) else [out]):
            if nearer:
                if grad is not None:
                    grad, before = grad.sum_to_size(nearer._input_metadata[place].shape), arrived[nearer][place]
                    arrived[nearer][place] = grad if before is None else before + grad
                awaited[nearer] -= 1
                if not awaited[nearer]:
                    ready.append(nearer)


def numbers(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="cuda")


@pytest.mark.parametrize("kind, options", [(kind, options) for kind in HEADS for options in OPTIONS
                                           if options != "easy" or kind == "arcface"])
def test_every_head_stays_on_the_device(kind, options):
    head, batch = HEADS[kind](16, 300, **OPTIONS[options]), CUDA_CHUNK + 1
    with on_fake_cuda():
        x = numbers(batch, 16).requires_grad_()
        loss = moved(head)(x, numbers(batch, dtype=torch.int64))
        backward(loss, torch.ones_like(loss))
        assert all(t.grad.shape == t.shape and t.grad.is_cuda for t in (x, *head.parameters()))


@pytest.mark.parametrize("model, jitter, options", [
    ({"backbone": "resnet18"}, 8, {"optimizer": "sgd"}),
    ({"backbone": "test_efficientnet", "neck": "bn"}, 3, {"optimizer": "adamw", "layer_decay": 0.8}),
    ({"backbone": "test_efficientnet", "neck": "swish", "pooling": "avg"}, 8,
     {"optimizer": "adamw", "clip_by": "value"}),
    ({"backbone": "test_efficientnet", "neck": "none", "pooling": "gem-fixed"}, 8,
     {"optimizer": "sgd", "momentum": 0.0, "clip_by": "adaptive"})])
def test_a_whole_update_stays_on_the_device(model, jitter, options, tmp_path):
    """All but autocast, which is off where there is no driver, and the average of the weights."""
    embedder = build_embedder(ModelConfig(weights="none", **model))
    step = Step(embedder, ArcFace(embedder.dim, 300, learn_scale=True))
    world, c = World(0, 1, torch.device("cuda")), TrainConfig(**options)
    with FakeTensorMode(allow_non_fake_inputs=False):
        updater = build_optimizer(moved(step), step.embedder.backbone, c)
        buffers, scale, log = KeptBuffers(step), LossScale(world), MetricsLog(tmp_path, world)
        with OnDevice() as watch:
            for number in range(2):
                step.head.set_margin(0.1 * number)
                step.head.set_key(number)
                batch = Batch(numbers(8, 64, 64, 3, dtype=torch.uint8), numbers(8, dtype=torch.int64),
                              range(8), numbers(8, jitter), replaced=0, wait=0.0)
                loss = step(batch.images, batch.jitter, batch.labels)
                backward(loss, poison(loss, scale.value))
                scale.unscale(step.parameters())
                bad = clip(step, c)
                step_unless(bad, updater)
                buffers.restore_if_bad(bad)
                log.count(loss, scale.update(bad, loss), batch)
    assert watch.names[f"aten::_fused_{c.optimizer}_"] == 2 * sum(bool(g["params"]) for g in updater.param_groups)


@pytest.mark.parametrize("make", [torch.tensor, lambda value: torch.as_tensor(value, device="cuda")])
def test_a_number_that_would_be_copied_is_noticed(make):
    with on_fake_cuda(), pytest.raises(AssertionError, match="lift_fresh on {'cpu'}"):
        make(-torch.inf)


def test_the_margins_cost_waits_for_its_result_alone():
    head = ArcFace(16, 300, **OPTIONS["class sizes"])
    with on_fake_cuda(), pytest.raises(DataDependentOutputException, match="_local_scalar_dense"):
        moved(head).cost_of_one(numbers(300))


def test_on_cuda_the_number_of_kernels_does_not_grow_with_the_classes():
    counts = []
    for classes in (100, 203_094):
        with FakeTensorMode():
            head = ArcFace(512, classes)
        with on_fake_cuda() as watch:
            moved(head)(numbers(CUDA_CHUNK, 512), numbers(CUDA_CHUNK, dtype=torch.int64))
        counts.append(watch.names.total())
    assert counts[0] == counts[1] < 300
