"""torchvision's ImageFolder (PIL) and transforms v2 in torch's DataLoader, on files.

Documentation: references/classification/train.py of pytorch/vision, without what follows the crop and flip.
"""
from loader_runner import measure, parse_args, training_transform
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

if __name__ == "__main__":
    args = parse_args(__doc__)
    dataset = ImageFolder(str(args.form / "photos"), training_transform(args, v2.PILToTensor()))
    loader = DataLoader(dataset, args.batch_size, shuffle=True, num_workers=args.workers, drop_last=True)
    measure((images for images, _ in loader), args)
