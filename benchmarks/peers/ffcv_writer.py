"""Pack photos with FFCV's DatasetWriter: resized to at most 384 on the long side (800×600 to 384×288), as JPEG.

Photos are decoded with OpenCV, which is faster than the Pillow of FFCV's ImageNet example.
"""
from pathlib import Path

import cv2
import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.writer import DatasetWriter
from runner import parse_args, read_list, timed

ASPECT = 4 / 3  # of the photos


class Photos:
    def __init__(self, paths: list[Path]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        photo = cv2.imread(str(self.paths[index]))
        assert photo is not None, self.paths[index]
        return cv2.cvtColor(photo, cv2.COLOR_BGR2RGB), 1


if __name__ == "__main__":
    args = parse_args(__doc__)
    image = RGBImageField(write_mode="jpg", max_resolution=round(args.short_side * ASPECT), jpeg_quality=args.quality)
    writer = DatasetWriter(str(args.out / "photos.beton"), {"image": image, "label": IntField()},
                           num_workers=args.workers)
    photos = Photos(read_list(args.list))
    timed(lambda: writer.from_indexed_dataset(photos))
