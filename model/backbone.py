"""What a timm model gives and which sizes it takes: asked of the model itself, tried on torch's meta device.

That device computes shapes alone: it needs neither weights nor memory, and draws no random numbers.
"""
import copy
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal

import timm
import torch
from timm.models import PretrainedCfg
from torch import Tensor

from arcshard.console import UserError

LONGEST = 200  # characters of a reason
STEPS = 8  # strides to either side of a size within which another is looked for
POSITIONS = ("gem", "gem-fixed", "avg")


@dataclass(frozen=True)
class Form:
    """What comes out of a model."""

    layout: Literal["NCHW", "NHWC", "tokens", "pooled"] = "NCHW"
    """pooled: only the model's own pooling makes something of its features."""
    width: int = 0
    """Channels of a position; pooled: of what the model's own pooling gives."""
    bare: bool = True
    """Whether the features are model(x) of the model made with global_pool="", with the layers that some have behind
    their map. Else they are its forward_features, made with its own head: so a VGG's, whose layers behind its map leave
    one position, over which every pooling is the same."""
    head: bool = False
    """Whether its forward_head takes its features."""
    prefix: int = 0
    """Tokens before the patches': of the class, of distillation, registers."""
    has_class: bool = False
    """Whether the first token is the class's."""
    has_patches: bool = True
    """Whether tokens of patches follow."""

    @property
    def poolings(self) -> tuple[str, ...]:
        """Values of model.pooling that it allows."""
        if self.layout == "pooled":
            return ("auto",)
        patches = POSITIONS if self.has_patches else ()
        of_class = ("cls", "cls+avg") if self.has_class and patches else ("cls",) if self.has_class else ()
        return (*patches, *of_class, "auto")


@cache
def form_of(name: str, own: bool = False) -> Form:
    """What timm's model `name` gives; own: by its own pooling. Raises UserError if it has none."""
    batch = _batch(own_size(name))
    bare: Any = None if own else _tried(lambda: _made(name, global_pool="")(batch))
    if _ndim(bare) == 4 and bare[0].numel() > max(bare.shape[1:]):
        return _of_map(bare, bare=True)
    model = _made(name)
    features = _tried(lambda: model.forward_features(batch))
    if own:
        pooled = _tried(lambda: model.forward_head(features, pre_logits=True))
        head = _ndim(pooled) == 2
        pooled = pooled if head else _tried(lambda: model(batch))
        if _ndim(pooled) != 2:
            raise UserError(f"model.backbone {name} has no pooling of its own: give another model.pooling than auto")
        return Form("pooled", pooled.shape[1], bare=False, head=head)
    if _ndim(features) == 3:
        return _of_tokens(model, features)
    if _ndim(bare) == 3:
        return Form("tokens", bare.shape[2])
    return _of_map(features, bare=False) if _ndim(features) == 4 else Form("pooled", bare=False)


def _of_map(features: Tensor, bare: bool) -> Form:
    _, first, second, last = features.shape
    channels_last = first == second != last  # the images are square
    return Form("NHWC", last, bare) if channels_last else Form("NCHW", first, bare)


def _of_tokens(model: Any, features: Tensor) -> Form:
    has_class = getattr(model, "cls_token", None) is not None
    prefix = getattr(model, "num_prefix_tokens", int(has_class))
    width = features.shape[2]
    if getattr(model, "attn_pool", None) is not None:
        model = copy.deepcopy(model)
        model.reset_classifier(0, "avg")
    normed = _tried(lambda: model.forward_head(features[:, :1].expand(-1, prefix + 1, -1), pre_logits=True))
    return Form("tokens", width, False, _ndim(normed) == 2 and normed.shape[1] == width, prefix, has_class,
                has_patches=features.shape[1] > prefix)


# Sizes. Most models of one size interpolate their position embeddings in each pass if they are told so, and keep their
# parameters' shapes. Others are made for a size.


def own_size(name: str) -> int:
    """Side of the images, pixels, that the model was made for."""
    return int(_cfg(name).input_size[-1])


@cache
def size_options(name: str, size: int | None = None) -> dict[str, Any]:
    """Arguments with which timm makes the model for images of this side, null: of its own.

    They are tried only where the model depends on them. Raises UserError for a size that it cannot be made for.
    """
    if not _cfg(name).fixed_input_size:
        return {}
    dynamic = {"dynamic_img_size": True}
    if not isinstance(_tried(lambda: _made(name, **dynamic)), Exception):
        # its own size need not be a multiple of its patch: 384 is none of the 14 of a SigLIP
        return {} if size == own_size(name) and _refusal(name, size, dynamic) else dynamic
    if size is None or size == own_size(name) or not _refusal(name, size, {}):
        return {}
    if reason := _refusal(name, size, {"img_size": size}):
        raise wrong_size(name, size, reason)
    return {"img_size": size}


def resize(backbone: Any, name: str, before: int, size: int) -> None:
    """Let a model that was made for images of side `before` take those of `size`, parameters interpolated by timm.

    Raises UserError if it cannot.
    """
    if size_options(name, before) == size_options(name, size):
        return
    if not hasattr(backbone, "set_input_size"):
        raise UserError(f"model.backbone {name} takes one image size, here {before}, and not {size}: give {before}, or "
                        "a backbone such as resnet50")
    with warnings.catch_warnings(action="ignore"):  # of torch about timm's interpolation
        backbone.set_input_size((size, size))


def check_size(name: str, size: int) -> None:
    """Raise UserError, with the nearest sizes that it can take, if the model cannot take images of this side."""
    if reason := _refusal(name, size, size_options(name, size)):
        raise wrong_size(name, size, reason)


def wrong_size(name: str, size: int, reason: str) -> UserError:
    """The error for a size that a model cannot take, with the nearest that it can."""
    stride = (getattr(_made(name), "feature_info", None) or [{}])[-1].get("reduction", 32)
    down = range(size // stride * stride, 0, -stride)[:STEPS + 1]
    up = range((size // stride + 1) * stride, size + (STEPS + 1) * stride, stride)
    near = [*filter(None, (_first_taken(name, down, size), _first_taken(name, up, size)))] or [own_size(name)]
    return UserError(f"model.backbone {name} cannot take images of {size} × {size} pixels ({reason}): give "
                     f"{' or '.join(map(str, near))}, or another backbone")


def _first_taken(name: str, sizes: Iterable[int], but: int) -> int | None:
    options = {"dynamic_img_size": True} if "dynamic_img_size" in size_options(name) else {}
    fixed = _cfg(name).fixed_input_size and not options
    return next((size for size in sizes if size != but and (
        not _refusal(name, size, options) or fixed and not _refusal(name, size, {"img_size": size}))), None)


def _refusal(name: str, size: int, options: dict[str, Any]) -> str:
    """Why the model, made with these arguments, takes no images of this side; empty: it does."""
    result = _tried(lambda: _made(name, **options).forward_features(_batch(size)))
    return said(result) if isinstance(result, Exception) else ""


# Trials.


def _cfg(name: str) -> PretrainedCfg:
    return timm.get_pretrained_cfg(name) or PretrainedCfg()


def said(error: Exception) -> str:
    """A library's exception as a part of a sentence."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST]


@lru_cache(maxsize=4)
def _made(name: str, **options: Any) -> Any:
    """The model on the meta device, in eval mode, without a classifier; not to be changed."""
    with torch.device("meta"):
        return timm.create_model(name, num_classes=0, **options).eval()


def _batch(size: int) -> Tensor:
    return torch.empty(2, 3, size, size, device="meta")


def _tried(what: Callable[[], Any]) -> Any:
    """What it returns, or the exception that it raises, whatever a timm model raises."""
    try:
        with torch.no_grad():
            return what()
    except Exception as error:
        return error


def _ndim(value: Any) -> int:
    """Number of dimensions of a tensor; 0 for anything else."""
    return value.ndim if isinstance(value, Tensor) else 0
