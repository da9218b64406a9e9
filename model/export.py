"""A network as files for other programs: one ONNX file, or two safetensors files for timm."""
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.onnx import OnnxExporterError

from arcshard.console import UserError
from model.embedder import Embedder, ModelConfig, UnitEmbedder, build_embedder

LARGEST = 2**31  # bytes of one protobuf message


# ONNX: uint8 photos in, unit embeddings out; the normalization of pixels is inside.


def write_onnx(path: Path, network: UnitEmbedder, size: int, about: dict[str, str]) -> None:
    """Write `network`, on the CPU and in eval mode, with `about` as the file's metadata.

    Input "images", uint8 (B, size, size, 3); output "embeddings", float32 (B, D); any B. Raises UserError for a
    network too large for one file, and if the packages of the extra `export` are missing.
    """
    _require()
    if (weights := sum(tensor.nbytes for tensor in network.state_dict().values())) >= LARGEST:
        raise UserError(f"the network has {weights / 1e9:.1f} GB, and an ONNX file holds less than 2.1 GB: give --out "
                        "a name that ends in .safetensors")
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)  # torch.export treats a dimension of 1 as constant
    try:
        program = torch.onnx.export(network, (example,), dynamo=True, verbose=False, input_names=["images"],
                                    output_names=["embeddings"], dynamic_shapes=({0: torch.export.Dim("B")},))
    except OnnxExporterError as error:  # torch 2.14 fails at the attention of BEiT
        raise UserError(f"torch cannot write this network as ONNX ({type(error).__name__}): give --out a name "
                        "that ends in .safetensors") from error
    assert program is not None
    program.model.metadata_props.update(about)
    program.save(path, external_data=False)


def read_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    """What the file computes on the CPU: uint8 (B, S, S, 3) -> float32 (B, D)."""
    from onnxruntime import InferenceSession
    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _require() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"ONNX needs the package {error.name}, which is missing: pip install 'arcshard[export]'"
                        ) from error


# safetensors: the backbone under timm's own names, and what follows it in a second file.


def neck_file(path: Path) -> Path:
    """The file of the pooling and neck that belong to the backbone at `path`."""
    return path.with_name(f"{path.stem}-neck.safetensors")


def write_timm(path: Path, embedder: Embedder, about: dict[str, str]) -> None:
    """Write the backbone to `path` and pooling.* and neck.* to `neck_file(path)`, `about` as both files' metadata."""
    rest = {f"{part}.{name}": tensor for part in ("pooling", "neck")
            for name, tensor in getattr(embedder, part).state_dict().items()}
    for file, tensors in ((path, embedder.backbone.state_dict()), (neck_file(path), rest)):
        file.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}, about))


def read_timm(path: Path, config: ModelConfig, size: int) -> Callable[[Tensor], Tensor]:
    """What the files compute, the backbone read by timm: uint8 (B, size, size, 3) -> float32 (B, D)."""
    embedder = build_embedder(replace(config, weights=str(path)), size=size)
    embedder.load_state_dict(embedder.state_dict() | load_file(neck_file(path)))
    return UnitEmbedder(embedder.eval())
