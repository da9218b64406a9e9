"""Class centres that begin where the untrained network puts the classes' photos."""
import math
from collections.abc import Iterator
from typing import Any

from arcshard.console import progress
from model.instruments import class_means, start_from
from training.accumulation import autocast
from training.course import Course, images_ahead
from training.step import Step


def begin_at_means(course: Course, step: Step) -> None:
    """Turn each class's first centre to the mean of its photos, over the first images of the training; in eval mode.

    All ranks must call. A class that these images do not show keeps its random centre.
    """
    step.eval()
    with autocast(course.c, course.world):
        means = class_means(lambda batch: step.embedder(batch.images, batch.jitter), watched(course),
                            len(course.class_sizes), course.world)
    start_from(step.head, means)


def watched(course: Course) -> Iterator[Any]:
    """The batches, with a bar."""
    count = min(course.epoch, course.args.head.init_images or course.epoch)
    size = course.loader.global_batch
    with progress(total=math.ceil(count / size) * size, unit="images", what="class means",
                  disable=not course.world.is_main) as bar:
        for batch in images_ahead(course, count):
            yield batch
            bar.update(size)
