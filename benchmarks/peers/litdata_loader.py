"""LitData's StreamingDataset and StreamingDataLoader, JPEG decoded to tensors, torchvision's transforms v2 on these.

Source of the settings: benchmarks/litdata/stream_imagenet.py of Lightning-AI/litData, with shuffle.
"""
from typing import Any

from litdata import StreamingDataLoader, StreamingDataset
from loader_runner import measure, parse_args, training_transform


class Photos(StreamingDataset):
    def __init__(self, crop: Any, **options: Any):
        super().__init__(**options)
        self.crop = crop

    def __getitem__(self, index: Any) -> Any:
        image, label = super().__getitem__(index)
        return self.crop(image), label


if __name__ == "__main__":
    args = parse_args(__doc__)
    dataset = Photos(training_transform(args), input_dir=str(args.form / "litdata"), shuffle=True)
    loader = StreamingDataLoader(dataset, batch_size=args.batch_size, num_workers=args.workers, drop_last=True)
    measure((images for images, _ in loader), args)
