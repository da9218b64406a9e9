"""Scaling a photo down to a short side, each new pixel the mean of the area that it covers."""
import cv2
import numpy as np


def target_size(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Width and height (pixels) once the shorter is at most `short_side`; never larger than they are."""
    scale = min(1.0, (short_side or width) / min(width, height)) if short_side else 1.0
    return max(1, round(width * scale)), max(1, round(height * scale))


def shrink(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """uint8 pixels (H, W, C) -> (height, width, C), no side longer than before."""
    if (height, width) == pixels.shape[:2]:
        return pixels
    cv2.setNumThreads(1)  # packing has a process for each core
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA).reshape(height, width, -1)
