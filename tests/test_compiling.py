"""The step as two graphs: no break, one compilation whatever moves, and a choice that leaves no trace."""
import itertools

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounterWithBackend

from arcshard.distributed import World
from model import HeadConfig, build_head
from model.batchnorm import freeze_statistics
from model.embedder import Embedder
from model.pooling import GeM
from training import step as training_step
from training.config import TrainConfig
from training.optim import build_optimizer, clip, step_unless
from training.step import CompiledStep, Step, choose_form, freeze, may_compile

ALONE = World(0, 1, torch.device("cpu"))
ALWAYS = TrainConfig(compile="always")
HEADS = {
    "arcface": HeadConfig(easy_margin=True, focal=2.0, learn_scale=True),
    "cosface": HeadConfig(kind="cosface", smoothing=0.1, negatives=0.5),
    "adaface": HeadConfig(kind="adaface", centers=3),
    "class sizes": HeadConfig(class_size_margin="power", class_weights="log", margin_grad="straight-through"),
}


def make_step(config=HeadConfig(), dropout=0.0):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.Dropout(dropout))
    neck = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))
    return Step(Embedder(backbone, GeM(), neck, 8, (0.5,) * 3, (0.2,) * 3),
                build_head(config, 8, 12, range(1, 13)))


def inputs(side=16):
    g = torch.Generator().manual_seed(side)
    return (torch.randint(256, (4, side, side, 3), dtype=torch.uint8, generator=g), torch.ones(4, 8), torch.arange(4))


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch._dynamo.reset()


@pytest.mark.parametrize("name", HEADS)
def test_a_step_is_two_graphs_which_nothing_that_moves_compiles_again(name):
    """Margin, drawn classes, learned scale, weights and statistics change between steps."""
    step, counter = make_step(HEADS[name]), CompileCounterWithBackend("aot_eager" if name == "adaface" else "eager")
    form, optimizer = CompiledStep(step, ALWAYS, counter), build_optimizer(step, step.embedder.backbone, ALWAYS)
    plain = make_step(HEADS[name])
    for number in range(4):
        for head in (step.head, plain.head):
            head.set_margin(0.1 * number)
            head.set_key(number)
        loss = form(*inputs())
        torch.testing.assert_close(loss, plain(*inputs()))
        torch.testing.assert_close(dict(step.named_buffers()), dict(plain.named_buffers()))
        loss.backward()
        step_unless(clip(step, TrainConfig()), optimizer)
        plain.load_state_dict(step.state_dict())
    assert counter.frame_count == 2, "embedder and head"


def test_images_that_grow_and_statistics_that_freeze_compile_once_more_each():
    step, counter = make_step(), CompileCounterWithBackend("eager")
    form = CompiledStep(step, TrainConfig(first_size=16), counter)
    for side in range(16, 96, 16):
        form(*inputs(side))
    assert counter.frame_count == 3, "the head's shapes stay"
    freeze_statistics(step)
    form(*inputs(side))
    assert counter.frame_count == 4


def test_many_stages_that_freeze_other_parts_all_compile():
    """As the 13 of Universal Image Embedding's first place; torch compiles a module's code 8 times by default."""
    parts = ("backbone", "neck", "head")
    for frozen in 2 * [*itertools.combinations(parts, 0), *itertools.combinations(parts, 1),
                       *itertools.combinations(parts, 2)]:
        step, c = make_step(), TrainConfig(frozen=frozen, compile="always")
        freeze(step, c)
        form, said = choose_form(step, inputs(), c, ALONE, "eager")
        assert isinstance(form, CompiledStep), said


def test_the_heads_gradient_is_there_before_the_backbones_backward_pass():
    """So DDP sends the largest matrix while the backbone computes; one graph would give all gradients at its end."""
    step, seen = make_step(), []

    def of_backward(graph, example_inputs):
        def run(*inputs):
            seen.append("pass")
            return graph.forward(*inputs)
        return make_boxed_func(run)

    backend = aot_autograd(fw_compiler=lambda graph, inputs: make_boxed_func(graph.forward), bw_compiler=of_backward)
    form = CompiledStep(step, ALWAYS, backend)
    step.head.weight.register_post_accumulate_grad_hook(lambda _: seen.append("head"))
    step.embedder.backbone[0].weight.register_post_accumulate_grad_hook(lambda _: seen.append("backbone"))
    form(*inputs()).backward()
    assert seen == ["pass", "head", "pass", "backbone"]


def test_a_synced_batchnorm_leaves_the_embedder_as_it_is_and_says_so():
    c, counter = TrainConfig(compile="always", batchnorm="synced"), CompileCounterWithBackend("eager")
    _, said = choose_form(make_step(), inputs(), c, ALONE, counter)
    assert said == training_step.NO_SYNCED and counter.frame_count == 1


def test_choosing_leaves_no_trace():
    """Weights, running statistics, gradients and random numbers are those of before, bit for bit."""
    step = make_step(HEADS["adaface"], dropout=0.5)
    before, drawn = {name: value.clone() for name, value in step.state_dict().items()}, torch.get_rng_state()
    form, said = choose_form(step, inputs(), ALWAYS, ALONE, "eager")
    assert form is not step and said == "the step runs compiled"
    assert torch.equal(torch.get_rng_state(), drawn) and all(p.grad is None for p in step.parameters())
    for name, value in step.state_dict().items():
        assert torch.equal(value, before[name]), name
    form(*inputs())
    assert not torch.equal(step.head.norm_mean, before["head.norm_mean"]), "a pass does leave traces"


@pytest.mark.parametrize("plain, fast, outcome", [(0.02, 0.01, "compiled"), (0.01, 0.0125, "as it is")])
def test_the_faster_form_is_taken_and_both_figures_are_said(plain, fast, outcome, monkeypatch):
    figures = iter([plain, fast])
    monkeypatch.setattr(training_step, "seconds_of", lambda *args: next(figures))
    step = make_step()
    form, said = choose_form(step, inputs(), TrainConfig(), ALONE, "eager")
    assert (form is step) is (outcome == "as it is")
    assert said == (f"forward and backward took {1000 * plain:.1f} ms as it is and {1000 * fast:.1f} ms compiled: the "
                    f"step runs {outcome}")


def no_compiler(graph, example_inputs):
    raise RuntimeError("there is no C++ compiler\nanywhere")


class Broken(Embedder):
    def forward(self, images, jitter):
        torch._dynamo.graph_break()
        return super().forward(images, jitter)


@pytest.mark.parametrize("kind, backend, reason", [
    (Embedder, no_compiler, "(BackendCompilerFailed: backend='no_compiler' raised: RuntimeError: there is no C++ "
                            "compiler anywhere"),
    (Broken, "eager", "(Unsupported: ")])
def test_what_cannot_be_compiled_runs_as_it_is_with_a_sentence(kind, backend, reason):
    step = make_step()
    step.embedder.__class__ = kind
    form, said = choose_form(step, inputs(), TrainConfig(compile="always"), ALONE, backend)
    assert form is step and said.startswith(f"the step cannot be compiled {reason}")
    assert said.endswith("): it runs as it is") and "\n" not in said and len(said) < 300


@pytest.mark.parametrize("choice, device, expected", [
    ("auto", "cuda", True), ("auto", "cpu", False), ("always", "cpu", True), ("never", "cuda", False)])
def test_it_is_tried_where_that_may_pay(choice, device, expected):
    assert may_compile(TrainConfig(compile=choice), World(0, 1, torch.device(device))) is expected


def test_every_parameter_is_in_one_group_of_the_optimizer():
    for config, optimizer in itertools.product(HEADS.values(), ("sgd", "adamw")):
        step = make_step(config)
        groups = build_optimizer(step, step.embedder.backbone, TrainConfig(optimizer=optimizer)).param_groups
        assert sorted(id(p) for group in groups for p in group["params"]) == sorted(map(id, step.parameters()))
        assert all(group["fused"] for group in groups)
