"""timm's create_dataset and create_loader on files (timm/data/loader.py; train.py of pytorch-image-models).

With its prefetcher, as train.py has it by default: the workers collate uint8. What the prefetcher does on the device,
the conversion to float, is left out, so the inner DataLoader is what is timed.
"""
import torch
from loader_runner import AREA, ASPECT, measure, parse_args
from timm.data import create_dataset, create_loader

if __name__ == "__main__":
    args = parse_args(__doc__)
    dataset = create_dataset("", root=str(args.form / "photos"), split="train")
    loader = create_loader(dataset, (3, args.size, args.size), args.batch_size, is_training=True, scale=AREA,
                           ratio=ASPECT, color_jitter=None,  # type: ignore[arg-type]  # 0 would still run
                           interpolation="bilinear", num_workers=args.workers,
                           device=torch.device("cpu"))
    measure((images for images, _ in loader.loader), args)
