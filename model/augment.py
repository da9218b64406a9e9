"""uint8 photos -> the network's input: batched tensor functions with one set of factors for each sample.

They run inside the training step, where torch.compile fuses them with the first convolution's input.
Shape suffixes: B batch, S side, K numbers of a sample.
"""
import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as PIL and torchvision turn RGB into gray


def prepare(images_BSS3: Tensor, jitter_BK: Tensor | None, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (B, S, S, 3) in 0..255 -> float32 (B, 3, S, S), normalized.

    jitter: columns 0-2 are factors of `color_jitter`; if there are eight, 3-6 are the edges of a hole for `cut_out` and
    7 is 1 where `autocontrast` applies. None leaves the colors as they are.
    mean, std: float32 (3,), of pixel values in 0..1.
    """
    x = images_BSS3.permute(0, 3, 1, 2).float() / 255  # a channels_last tensor, without moving a byte
    if jitter_BK is not None:
        x = _jittered(x, jitter_BK)
    return (x - mean[:, None, None]) / std[:, None, None]


def _jittered(x: Tensor, jitter_BK: Tensor) -> Tensor:
    x = color_jitter(x, jitter_BK[:, :3])
    if jitter_BK.shape[1] > 3:
        x = torch.where(jitter_BK[:, 7, None, None, None] > 0, autocontrast(x), x)
        x = cut_out(x, jitter_BK[:, 3:7])
    return x


def color_jitter(x_B3SS: Tensor, factors_B3: Tensor) -> Tensor:
    """Brightness, then contrast, then saturation, each multiplied by its sample's factor; values stay in 0..1.

    The formulas are torchvision's `adjust_brightness`, `adjust_contrast` and `adjust_saturation`.
    """
    brightness, contrast, saturation = (f[:, None, None, None] for f in factors_B3.unbind(1))
    x = (x_B3SS * brightness).clamp(0, 1)
    mean_gray = _gray(x).mean((2, 3), keepdim=True)
    x = (mean_gray + (x - mean_gray) * contrast).clamp(0, 1)
    gray = _gray(x)
    return (gray + (x - gray) * saturation).clamp(0, 1)


def autocontrast(x_B3SS: Tensor) -> Tensor:
    """Stretch each channel of each image to 0..1; a constant channel stays. The formula is torchvision's."""
    low, high = x_B3SS.amin((2, 3), keepdim=True), x_B3SS.amax((2, 3), keepdim=True)
    varies = high > low
    return torch.where(varies, (x_B3SS - low) / torch.where(varies, high - low, 1), x_B3SS)


def cut_out(x_B3SS: Tensor, edges_B4: Tensor) -> Tensor:
    """Black where a pixel's center lies in [left, right) × [top, bottom), in shares of the side.

    Source: DeVries and Taylor, "Improved regularization of convolutional neural networks with Cutout", 2017.
    """
    side = x_B3SS.shape[-1]
    at = (torch.arange(side, device=x_B3SS.device) + 0.5) / side
    left, top, right, bottom = edges_B4[:, :, None].unbind(1)  # each (B, 1)
    columns, rows = (at >= left) & (at < right), (at >= top) & (at < bottom)
    return x_B3SS.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def _gray(x_B3SS: Tensor) -> Tensor:
    """Luma, (B, 1, S, S); by scalars, since a tensor of weights would have to be copied to the device."""
    red, green, blue = x_B3SS.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
