"""The optimizer and what belongs to it: averaged weights, loss scale, clipping, a sharded head's state. None waits."""
import copy
import math
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatch
from typing import Any, Generic, TypeVar

import torch
import torch.distributed as dist
from timm.optim import param_groups_layer_decay
from timm.utils import adaptive_clip_grad
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from arcshard.distributed import World
from model.heads import MarginHead
from training.config import TrainConfig
from training.step import Step

# A sharded head: its optimizer's state is whole in a checkpoint, so that any number of ranks can continue from it, and
# DDP leaves its weight alone.


def whole_state(optimizer: torch.optim.Optimizer, head: MarginHead) -> dict[str, Any]:
    """optimizer.state_dict() as if one rank held all the centers; all ranks must call."""
    return _changed(optimizer.state_dict(), optimizer, head, head.shard.whole)


def own_state(state: dict[str, Any], optimizer: torch.optim.Optimizer, head: MarginHead) -> dict[str, Any]:
    """What this rank needs of a `whole_state`, for optimizer.load_state_dict."""
    return _changed(state, optimizer, head, head.shard.own)


def keep_out_of_ddp(module: nn.Module, parameters: Sequence[Tensor]) -> None:
    """Let DDP neither send around nor average these parameters of `module`, nor its buffers; call it before wrapping.

    DDP would send the running statistics with each step; rank 0's are shared where they are used instead.
    """
    names = [name for name, p in module.named_parameters() if any(p is other for other in parameters)]
    names += [name for name, _ in module.named_buffers()]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, names)


def _changed(state: dict[str, Any], optimizer: torch.optim.Optimizer, head: MarginHead,
             change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """With what the optimizer keeps for each of the head's centers changed."""
    order = [id(p) for group in optimizer.param_groups for p in group["params"]]
    number = order.index(id(head.weight)) if id(head.weight) in order else None  # None: it is frozen
    if head.shard.size == 1 or number not in state["state"]:
        return state
    kept = {name: change(value) if isinstance(value, Tensor) and value.ndim == head.weight.ndim else value
            for name, value in state["state"][number].items()}
    return {**state, "state": {**state["state"], number: kept}}


# Averaged weights: usually better than the weights themselves.

M = TypeVar("M", bound=nn.Module)
SHARE = 0.1  # of the images seen so far that the half-life may not exceed


def decay(images: int, position: int, half_life: float) -> float:
    """What is kept of the average over an update of so many images that ends at `position`; in [0, 1).

    A weight of `half_life` images ago counts half. Early on the half-life is a share of what was seen, so that the
    first weights are forgotten (the power function of Karras et al., "Analyzing and improving the training dynamics of
    diffusion models", CVPR 2024, section 3.1). Two updates forget as much as one of both their images.
    """
    turn = half_life / SHARE  # position from which the half-life is constant
    start = position - images
    early = min(start, turn) / min(position, turn)
    return early ** (math.log(2) / SHARE) * 0.5 ** (max(0.0, position - max(start, turn)) / half_life)


class AveragedWeights(Generic[M]):
    """A copy of a module whose weights and running statistics follow it slowly; `module` is what to evaluate.

    Args:
        module: what is trained; its weights at the beginning are the first average.
        half_life: in images.
    """

    def __init__(self, module: M, half_life: float):
        self.half_life = half_life
        self.module: M = copy.deepcopy(module).requires_grad_(False).eval()
        pairs = list(zip(self.module.state_dict().values(), module.state_dict().values()))
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, images: int, position: int) -> None:
        """Follow an update of so many images, after which so many have been seen."""
        averages, weights = map(list, zip(*self._floats))
        torch._foreach_lerp_(averages, weights, 1 - decay(images, position, self.half_life))
        if self._counters:  # BatchNorm's, 53 in a ResNet-50
            averages, counts = map(list, zip(*self._counters))
            torch._foreach_copy_(averages, counts)


# Loss scale: the factor on a float16 run's losses, without which small gradients would be rounded to 0.

START, GROWTH, INTERVAL = 65536.0, 2.0, 2000  # of torch.amp.GradScaler


class LossScale:
    """Halved by an update that overflows, doubled after INTERVAL updates in a row that did not.

    torch.amp.GradScaler's rule (Micikevicius et al., "Mixed precision training", ICLR 2018, section 3.2). Its class
    asks each rank's own gradients, of which a sharded head's differ; this one takes the decision that all ranks share.
    It stays on the device; all ranks must call `update`.
    """

    def __init__(self, world: World):
        self.world = world
        self.value = torch.tensor(START, device=world.device)
        self.good = torch.tensor(0, device=world.device)  # updates in a row without overflow
        self.overflowed = torch.tensor(0, device=world.device)  # since `figures`

    def unscale(self, parameters: Iterable[Tensor]) -> None:
        """Divide the gradients by it."""
        torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], 1 / self.value)

    def update(self, bad: Tensor, loss: Tensor) -> Tensor:
        """Adapt to an update; returns whether it is bad for another reason than overflow, bool scalar.

        bad: whether the gradient is not finite, alike on all ranks. Then it is overflow if every rank's loss is finite
        and there is a factor that could be lower.
        """
        finite = self.world.total((~loss.isfinite()).float()) == 0
        overflowed = bad & finite & (self.value > 1)
        self.good.copy_(torch.where(bad, 0, self.good + 1))
        grown = torch.where(self.good == INTERVAL, self.value * GROWTH, self.value)
        self.value.copy_(torch.where(overflowed, self.value / GROWTH, grown))
        self.good.remainder_(INTERVAL)
        self.overflowed += overflowed
        return bad & ~overflowed

    def figures(self) -> dict[str, float]:
        """For a line of the log: the factor, and how many updates were left out since the line before; waits."""
        figures = {"loss_scale": float(self.value), "overflowed": int(self.overflowed)}
        self.overflowed.zero_()
        return figures

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("value", "good", "overflowed")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            getattr(self, name).copy_(value)


def clip(step: Step, c: TrainConfig) -> Tensor:
    """Limit the gradients as c.clip_by says; returns whether they were not finite before, a bool scalar on the device.

    All ranks must call; the answer is alike on all. By the norm it is torch's clip_grad_norm_, bit for bit. Source of
    adaptive: Brock et al., "High-performance large-scale image recognition without normalization", ICML 2021, section
    4.1, which leaves out the last layer.
    """
    parameters = list(step.parameters())
    norm = gradient_norm(parameters, step.head.sharded_parameters)
    match c.clip_by:
        case "norm":
            nn.utils.clip_grads_with_norm_(parameters, c.clip, norm)
        case "value":
            nn.utils.clip_grad_value_(parameters, c.clip)
        case "adaptive":
            adaptive_clip_grad(step.embedder.parameters(), c.clip)
    return ~norm.isfinite()


def gradient_norm(parameters: Sequence[Tensor], sharded: Sequence[Tensor]) -> Tensor:
    """Of all gradients together, a scalar on their device.

    sharded: those of the parameters of which each rank holds a part, with the gradient of that part: their squares are
    added up over the ranks, which must all call.
    """
    ours, others = ([p.grad for p in parameters if p.grad is not None and any(p is s for s in sharded) == is_sharded]
                    for is_sharded in (True, False))
    if not ours:
        return nn.utils.get_total_norm(others)
    squares = nn.utils.get_total_norm(ours).square()
    dist.all_reduce(squares)
    return (squares + nn.utils.get_total_norm(others).square()).sqrt() if others else squares.sqrt()


def build_optimizer(module: nn.Module, backbone: nn.Module, c: TrainConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over `parameter_groups`, fused: its `found_inf` then leaves out an update, see `step_unless`."""
    groups = parameter_groups(module, backbone, c)
    if c.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=(c.momentum, 0.999), fused=True)
    optimizer = torch.optim.SGD(groups, momentum=c.momentum, nesterov=c.nesterov and c.momentum > 0, fused=True)
    if c.momentum:  # from zero it moves as torch's own does, and is there if the first update is left out
        for group in optimizer.param_groups:
            for p in group["params"]:
                optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer


def parameter_groups(module: nn.Module, backbone: Any, c: TrainConfig) -> list[dict[str, Any]]:
    """Layers of the backbone, then the rest; of each first matrices and kernels, then what decay_on "weights" spares.

    These are biases, normalization, GeM's exponent, and what timm's model names, such as position embeddings.
    """
    patterns = backbone.no_weight_decay() if hasattr(backbone, "no_weight_decay") else ()
    spared = {id(p) for p in module.parameters() if p.ndim < 2}
    spared |= {id(p) for name, p in backbone.named_parameters() if any(fnmatch(name, like) for like in patterns)}
    of_backbone = {id(p) for p in backbone.parameters()}
    rest = [p for p in module.parameters() if id(p) not in of_backbone]
    parts = [(c.backbone_lr * share, layer) for share, layer in layers(backbone, c.layer_decay).items()] + [(1.0, rest)]
    return [{"params": [p for p in parameters if p.requires_grad and (id(p) not in spared) == is_weight],
             "lr": c.lr * share, "lr_share": share,
             "weight_decay": c.weight_decay if is_weight or c.decay_on == "all" else 0.0}
            for share, parameters in parts for is_weight in (True, False)]


def layers(backbone: nn.Module, decay: float) -> dict[float, list[nn.Parameter]]:
    """The backbone's parameters by decay^(number of layers above theirs), the last layer's first.

    Source: Clark et al., "ELECTRA", ICLR 2020, appendix A; the layers are those of timm's group_matcher.
    """
    if decay == 1:
        return {1.0: list(backbone.parameters())}
    share = {id(p): group["lr_scale"] for group in param_groups_layer_decay(backbone, layer_decay=decay)
             for p in group["params"]}
    found: dict[float, list[nn.Parameter]] = {1.0: []}
    for p in backbone.parameters():
        if p.requires_grad:
            found.setdefault(share[id(p)], []).append(p)
    return dict(sorted(found.items(), reverse=True))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give each group its share of `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_share"]


def step_unless(bad: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Update, or change nothing where `bad` (bool scalar on the parameters' device) is true; then forget the gradients.

    By the attribute of torch's fused optimizers that its GradScaler uses: the kernel reads the flag, the host need not.
    """
    optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
