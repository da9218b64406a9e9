"""What is measured at an epoch's end, cheaply; evaluate.py has the real figures."""
import math

import torch

from model.instruments import Instruments
from shards import Dataset
from training.accumulation import autocast
from training.course import Course, make_loader
from training.step import Step


@torch.inference_mode()
def validate(course: Course, step: Step) -> dict[str, float | None]:
    """Figures of the val split's photos among the class centres; leaves eval mode.

    val_recall@1: share whose nearest centre is their own, a cheap stand-in for evaluate.py's. The others are those of
    `Instruments`, over the photos with a landmark; None where there is none.
    """
    args, c, world = course.args, course.c, course.world
    head, right, seen = step.head.whole(), 0, 0
    instruments = Instruments(len(course.class_sizes), world)
    step.eval()
    for batch in make_loader(Dataset(args.data, "val", args.cache), args, c, world, train=False):
        with autocast(c, world):
            embeddings = step.embedder(batch.images, batch.jitter)
        cosines, known = head.cosines(embeddings), batch.labels >= 0
        instruments.see(cosines[known], embeddings[known], batch.labels[known])
        right += int((cosines.argmax(1) == batch.labels).sum())
        seen += len(batch.labels)
    right_of_all, seen_of_all = world.sum(right, seen)
    figures = {"val_recall@1": right_of_all / seen_of_all, **instruments.read()}
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}
