"""One encoded photo as the CPU loader's evaluation shows it, without a pipeline: building DALI's takes 50 ms."""
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from loader.augment import View
from loader.pipeline import finish_on_cpu
from loader.plan import evaluation_plan

SIZE_DTYPE = np.dtype([("width", "<i4"), ("height", "<i4")])


def frame(jpeg: bytes, view: View, size: int) -> NDArray[np.uint8]:
    """uint8 (size, size, 3), RGB: the pixels of Loader(train=False, device="cpu"), bit for bit.

    jpeg: in the datasets' normal form. view: its frame is shown, nothing random. Raises ValueError for damage.
    """
    pixels = simplejpeg.decode_jpeg(jpeg, "RGB")
    row = np.array([pixels.shape[1::-1]], SIZE_DTYPE)
    plan = evaluation_plan(row, view.in_evaluation(), np.zeros(1, np.int64), 1, size)
    x, y, width, height = plan.boxes[0].tolist()
    image = np.empty((size, size, 3), np.uint8)
    finish_on_cpu(pixels[y:y + height, x:x + width], plan, 0, image)
    return image
