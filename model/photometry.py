"""uint8 photos -> the network's input: batched tensor functions with one set of factors a sample.

They run inside the training step, where torch.compile fuses them with the first convolution's input.
Shape suffixes: B batch, S side.
"""
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as PIL and torchvision turn RGB into grey


def prepare(images_BSS3: Tensor, jitter_B3: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (B, S, S, 3) in 0..255, factors of `color_jitter` (B, 3) -> float32 (B, 3, S, S), normalised.

    mean, std: float32 (3,), of pixel values in 0..1.
    """
    x = images_BSS3.permute(0, 3, 1, 2).float() / 255  # a channels_last tensor without moving a byte
    return (color_jitter(x, jitter_B3) - mean[:, None, None]) / std[:, None, None]


def color_jitter(x_B3SS: Tensor, factors_B3: Tensor) -> Tensor:
    """Brightness, then contrast, then saturation, each multiplied by its sample's factor; values stay in 0..1.

    The formulas are torchvision's `adjust_brightness`, `adjust_contrast` and `adjust_saturation`.
    """
    brightness, contrast, saturation = (f[:, None, None, None] for f in factors_B3.unbind(1))
    x = (x_B3SS * brightness).clamp(0, 1)
    mean_grey = _grey(x).mean((2, 3), keepdim=True)
    x = (mean_grey + (x - mean_grey) * contrast).clamp(0, 1)
    grey = _grey(x)
    return (grey + (x - grey) * saturation).clamp(0, 1)


def _grey(x_B3SS: Tensor) -> Tensor:
    """Luma, (B, 1, S, S); products with scalars, since a tensor of weights would have to be copied to the device."""
    red, green, blue = x_B3SS.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
