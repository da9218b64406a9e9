"""What is measured at an epoch's end, cheaply; evaluate.py has the real figures."""
import torch

from shards import Dataset
from training.accumulation import autocast
from training.course import Course, make_loader
from training.step import Step


@torch.inference_mode()
def validate(course: Course, step: Step) -> float:
    """Share of the val split whose nearest class centre is its own: a cheap recall@1; leaves eval mode."""
    args, c, world = course.args, course.c, course.world
    head, right, seen = step.head.whole(), 0, 0
    step.eval()
    for batch in make_loader(Dataset(args.data, "val", args.cache), args, c, world, train=False):
        with autocast(c, world):
            embeddings = step.embedder(batch.images, batch.jitter)
        right += int((head.cosines(embeddings).argmax(1) == batch.labels).sum())
        seen += len(batch.labels)
    right_of_all, seen_of_all = world.sum(right, seen)
    return right_of_all / seen_of_all
