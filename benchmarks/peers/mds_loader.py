"""MosaicML's StreamingDataset and StreamingDataLoader on local MDS shards, PIL and torchvision's transforms.

Documentation: docs/source/getting_started/main_concepts.md of mosaicml/streaming, and its StreamingVisionDataset.
"""
import io
from typing import Any

from loader_runner import measure, parse_args, training_transform
from PIL import Image
from streaming import StreamingDataLoader, StreamingDataset
from streaming.base.util import clean_stale_shared_memory
from torchvision.transforms import v2


class Photos(StreamingDataset):
    def __init__(self, transform: Any, **options: Any):
        super().__init__(**options)
        self.transform = transform

    def __getitem__(self, index: Any) -> Any:
        sample = super().__getitem__(index)
        return self.transform(Image.open(io.BytesIO(sample["jpg"])).convert("RGB")), sample["label"]


if __name__ == "__main__":
    args = parse_args(__doc__)
    clean_stale_shared_memory()  # of a run that was killed
    dataset = Photos(training_transform(args, v2.PILToTensor()), local=str(args.form / "mds" / "0"), shuffle=True,
                     batch_size=args.batch_size)
    loader = StreamingDataLoader(dataset, batch_size=args.batch_size, num_workers=args.workers, drop_last=True)
    measure((images for images, _ in loader), args)
