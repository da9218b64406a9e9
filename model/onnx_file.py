"""A network as one ONNX file: uint8 photos in, unit embeddings out, the normalisation of pixels inside."""
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from arcshard.console import UserError
from model.embedder import UnitEmbedder

LARGEST = 2**31  # bytes that one protobuf message may have


def write_onnx(path: Path, network: UnitEmbedder, size: int, about: dict[str, str]) -> None:
    """Write `network`, on the CPU and in eval mode, with `about` as the file's metadata.

    Input "images", uint8 (B, size, size, 3); output "embeddings", float32 (B, D); any B. Raises UserError for a
    network that one file cannot hold, and without the packages of the extra `export`.
    """
    _require()
    if (weights := sum(tensor.nbytes for tensor in network.state_dict().values())) >= LARGEST:
        raise UserError(f"an ONNX file holds less than 2.1 GB, and this network has {weights / 1e9:.1f} GB: "
                        "give --out a name in .safetensors")
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)  # torch.export takes a dimension of 1 for a constant
    program = torch.onnx.export(network, (example,), dynamo=True, verbose=False, input_names=["images"],
                                output_names=["embeddings"], dynamic_shapes=({0: torch.export.Dim("B")},))
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
        raise UserError(f"ONNX needs a package that is missing ({error.name}): pip install -e '.[export]'") from error
