"""A network as two safetensors files: the backbone under timm's own names, and what follows it."""
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from model.embedder import Embedder, ModelConfig, UnitEmbedder, build_embedder


def neck_file(path: Path) -> Path:
    """Where pooling and neck lie that belong to the backbone at `path`."""
    return path.with_name(f"{path.stem}-neck.safetensors")


def write_timm(path: Path, embedder: Embedder, about: dict[str, str]) -> None:
    """Write the backbone to `path` and pooling.* and neck.* to `neck_file(path)`, `about` as both files' metadata."""
    rest = {f"{part}.{name}": tensor for part in ("pooling", "neck")
            for name, tensor in getattr(embedder, part).state_dict().items()}
    for file, tensors in ((path, embedder.backbone.state_dict()), (neck_file(path), rest)):
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, about)


def read_timm(path: Path, config: ModelConfig) -> Callable[[Tensor], Tensor]:
    """What the files compute, the backbone read by timm: uint8 (B, S, S, 3) -> float32 (B, D)."""
    embedder = build_embedder(replace(config, weights=str(path)))
    embedder.load_state_dict(embedder.state_dict() | load_file(neck_file(path)))
    return UnitEmbedder(embedder.eval())
