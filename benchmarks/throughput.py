"""How fast each part between disk and network is on this machine and dataset, and which one sets the pace.

    python benchmarks/throughput.py --data data/demo/dataset [--size 224] [--json FILE] [--picture FILE.svg]
    torchrun --nproc-per-node 2 benchmarks/throughput.py --data …         rates are then of all ranks together

In turn, several rounds of (after a batch each that no clock sees):
  read     the planned order, the samples' bytes and their crc32 (from the page cache if the shards fit into it)
  decode   the crops of batches that are already read: DALI alone; on a GPU with resize and flip
  loader   this project's Loader with its default training view
  dali     DALI's own webdataset reader on the same shards: image_random_crop, resize, crop_mirror_normalize
  step     train.py's own update of --backbone (random weights) with an ArcFace head, clip and averaged weights, on one
           cached batch
  both     loader and step together, after what was prefetched is used up, and the share of the time that the step
           waited for the loader (on a GPU: that the device waited)
Machines drift, so compare the rates of one round: the ratios are medians over rounds.
"""
import argparse
import json
from pathlib import Path
from typing import Any

import torch
from machine import machine
from throughput_parts import Parts
from throughput_report import PACKAGES, picture, text

from arcshard import distributed
from arcshard.console import Parser, check_least, progress, run
from arcshard.distributed import World
from arcshard.files import write_text
from arcshard.memory import keep_freed_memory
from shards import Dataset


def main() -> None:
    args = parse_args()
    keep_freed_memory()
    world = distributed.start("auto")
    try:
        report = measured(args, world)
    finally:
        distributed.stop()
    if world.is_main:
        print(text(report))
        if args.json:
            write_text(args.json, json.dumps(report, indent=2) + "\n")
        if args.picture:
            write_text(args.picture, picture(report))


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="dataset folder")
    parser.add_argument("--size", type=int, default=224, help="side of the images, pixels (default: 224)")
    parser.add_argument("--batch-size", type=int, default=64, help="of each rank (default: 64)")
    parser.add_argument("--batches", type=int, default=16, help="batches a round (default: 16)")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--num-threads", type=int, help="of both loaders (default: this rank's share of the cores)")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", help="timm model of the step")
    parser.add_argument("--json", type=Path, help="also write every round's figures here")
    parser.add_argument("--picture", type=Path, help="also draw the rates, an SVG")
    args = parser.parse_args()
    check_least(args, 1, "size", "batch_size", "batches", "rounds")
    return args


def measured(args: argparse.Namespace, world: World) -> dict[str, Any]:
    """Every round's rates over all ranks, with what they depend on."""
    parts = Parts(Dataset(args.data, "train"), args, world)
    rounds = [parts.rates() for _ in progress(range(args.rounds), unit="round", what="measure",
                                              disable=not world.is_main)]
    settings = {"size": args.size, "batch_size": args.batch_size, "ranks": world.size, "num_threads": parts.threads,
                "images_a_round": args.batches * args.batch_size * world.size, "backbone": args.backbone,
                "samples": len(parts.dataset)}
    gpu = torch.cuda.get_device_name() if world.device.type == "cuda" else None
    return {"machine": machine(PACKAGES) | {"gpu": gpu}, "settings": settings,
            "classes_a_batch": parts.classes_a_batch(), "rounds": rounds}


if __name__ == "__main__":
    run(main)
