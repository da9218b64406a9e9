"""What a run is about to do, as a table for people, and how long it will take."""
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from arcshard.console import rate_text, size_text, time_text
from arcshard.distributed import World
from loader import Loader
from loader.mixture import Mixture
from model import HeadConfig, ModelConfig
from model.margins import fixed_adacos_scale
from training.config import RunConfig, StageConfig, TrainConfig
from training.trial import network

WIDTH = 11  # of the titles


@dataclass(frozen=True)
class Cost:
    """Of the network: parameters, and the operations of a forward pass on one image, 2 for a multiply-add.

    Operations are those of convolutions and matrix products; all others are left out.
    """
    backbone: int
    neck: int
    dim: int
    """Size of the embedding."""
    flops: int


@dataclass(frozen=True)
class StagePlan:
    """What a stage will do."""
    rows: dict[str, str]
    """Lines of the table by their titles."""
    images: int
    """Of the whole stage."""
    flops: int
    """Of one image of train.size."""


Plan = dict[str, StagePlan]
"""The stages that are left, by name."""


def make_plan(run: RunConfig, loaders: Mapping[str, Loader], world: World) -> Plan:
    """loaders: of the stages that are left."""
    stages = {name: (run.stages[name], loader) for name, loader in loaders.items()}
    costs = {size: cost_of(run.model, size) for size in {config.train.size for config, _ in stages.values()}}
    return {name: StagePlan(rows_of(config, loader, costs[config.train.size], world),
                            math.ceil(config.train.epochs * loader.stream.epoch_size), costs[config.train.size].flops)
            for name, (config, loader) in stages.items()}


def cost_of(model: ModelConfig, size: int) -> Cost:
    """Counted on torch's meta device, as in `training.trial`."""
    embedder = network(model, size).embedder.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        embedder.neck(embedder.pooled(torch.empty(1, 3, size, size, device="meta")))
    backbone, neck = (sum(p.numel() for p in part.parameters()) for part in (embedder.backbone, embedder.neck))
    return Cost(backbone, neck, embedder.dim, counter.get_total_flops())


def table(plan: Plan, out: object, seen: int, world: World) -> str:
    """Each row once where the stages agree, else a line of it for each stage. seen: images of the run so far."""
    lines = [("run", f"{out}, " + (f"continues after {seen:,} images" if seen else "new")),
             ("device", device_of(world))]
    for title in next(iter(plan.values())).rows:
        texts = {name: stage.rows[title] for name, stage in plan.items()}
        if len({*texts.values()}) > 1:
            lines += zip([title, *[""] * len(texts)], [f"{name}: {text}" for name, text in texts.items()])
        else:
            lines.append((title, next(iter(texts.values()))))
    return "\n".join(f"{title:{WIDTH}}{text}" for title, text in lines)


def rows_of(config: StageConfig, loader: Loader, cost: Cost, world: World) -> dict[str, str]:
    """The stage's lines of the table."""
    model, num_classes = config.model, loader.dataset.num_classes
    head = num_classes * config.head.centers * cost.dim
    return {
        "data": data_of(loader),
        "model": f"{model.backbone} (weights: {model.weights}), pooling {model.pooling}, neck {model.neck}, "
                 f"embeddings of {cost.dim}",
        "size": f"{millions(cost.backbone)} parameters in the backbone, {millions(cost.neck)} in the neck, "
                f"{millions(head)} in the head; forward pass {cost.flops / 1e9:.3g} GFLOPs an image",
        "head": head_of(config.head, num_classes),
        "optimizer": optimizer_of(config.train),
        "steps": steps_of(config.train, loader.stream.epoch_size, world.size)}


def data_of(loader: Loader) -> str:
    mixed = loader.dataset
    datasets = mixed.datasets if isinstance(mixed, Mixture) else [mixed]
    parts = [f"{dataset.path}: {len(dataset):,} photos in {dataset.num_shards:,} shards" for dataset in datasets]
    others = [f"{split} {counts['samples']:,}" for split, counts in datasets[0].manifest["splits"].items()
              if split != mixed.split]
    return f"{' + '.join(parts)}, {mixed.num_classes:,} classes" + (f"; {', '.join(others)}" if others else "")


def head_of(c: HeadConfig, num_classes: int) -> str:
    centers = f" × {c.centers} centers" if c.centers > 1 else ""
    rising = f" (from {c.margin_start:g} in {c.margin_warmup:.0%} of the images)" if c.margin_warmup else ""
    scale = f"auto ({fixed_adacos_scale(num_classes):.1f})" if c.scale == "auto" else f"{c.scale:g}"
    return f"{c.kind}: {num_classes:,} classes{centers}, margin {c.margin:g}{rising}, scale {scale}"


def optimizer_of(c: TrainConfig) -> str:
    falls = {"cosine": f"cosine to {c.lr_end:g}", "poly": f"polynomial to {c.lr_end:g}",
             "step": f"× {c.step_gamma:g} in steps", "constant": "then constant"}[c.schedule]
    backbone = f" (backbone × {c.backbone_lr:g})" if c.backbone_lr != 1 else ""
    frozen = f"; frozen: {', '.join(c.frozen_parts)}" if c.frozen != "none" else ""
    return (f"{c.optimizer}, lr {c.lr:g}{backbone}, weight decay {c.weight_decay:g}; warmup {c.warmup:.0%}, {falls}"
            f"{frozen}")


def steps_of(c: TrainConfig, epoch: int, ranks: int) -> str:
    """epoch: images of one."""
    size = f"{c.size}" if c.first_size is None else f"{c.first_size} to {c.size}"
    steps = math.ceil(math.ceil(c.epochs * epoch) / c.global_batch)
    parts = ranks * c.micro_batches(ranks)
    batch = f"{c.global_batch}" if parts == 1 else f"{parts} × {c.global_batch // parts}"
    return f"{steps:,} of {batch} images of {size} pixels; epochs: {c.epochs:g} of {epoch:,} images"


def device_of(world: World) -> str:
    ranks = f", ranks: {world.size}" if world.size > 1 else ""
    if world.device.type == "cpu":
        return f"CPU, threads: {torch.get_num_threads()}{ranks}"
    free, total = torch.cuda.mem_get_info(world.device)
    return f"{torch.cuda.get_device_name(world.device)}, {size_text(free)} of {size_text(total)} free{ranks}"


def memory_of(world: World) -> str:
    """The greatest use of the device's memory so far, as a clause; empty on the CPU."""
    if world.device.type == "cpu":
        return ""
    used, total = torch.cuda.max_memory_reserved(world.device), torch.cuda.mem_get_info(world.device)[1]
    return f"; device memory {size_text(used)} of {size_text(total)}"


def millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M" if count >= 1e5 else f"{count:,}"


def seconds_to_come(plan: Plan, name: str, position: int, images_per_s: float) -> tuple[float, float]:
    """Of this stage, and of those after it, whose images take as many times longer as their forward pass.

    position: images of this stage so far.
    """
    now, names = plan[name], list(plan)
    later = [plan[other] for other in names[names.index(name) + 1:]]
    return (max(0, now.images - position) / images_per_s,
            sum(stage.images * stage.flops / now.flops for stage in later) / images_per_s)


def pace(plan: Plan, name: str, position: int, images_per_s: float, world: World) -> str:
    """A sentence: speed, memory, and time to come for this stage and those after it. position: as above."""
    own, later = seconds_to_come(plan, name, position, images_per_s)
    return (f"{rate_text(images_per_s)} images/s{memory_of(world)}; about {time_text(own)} to come"
            + (f", and {time_text(later)} for the stages after it" if later else ""))
