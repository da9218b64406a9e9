"""The webdataset library on arcshard's shards: shards and a buffer shuffled, decode("pil"), batches in workers.

Documentation: README.md of webdataset/webdataset ("The webdataset Pipeline API"), and its ImageNet example.
"""
import webdataset
from loader_runner import measure, parse_args, training_transform
from torchvision.transforms import v2

BUFFER = 1000  # samples a worker, not decoded

if __name__ == "__main__":
    args = parse_args(__doc__)
    tars = sorted(map(str, args.form.glob("dataset/train-*.tar")))
    transform = training_transform(args, v2.PILToTensor())
    dataset = (webdataset.WebDataset(tars, shardshuffle=len(tars), seed=0).shuffle(BUFFER).decode("pil")
               .to_tuple("jpg", "cls").map_tuple(transform, int).batched(args.batch_size, partial=False))
    loader = webdataset.WebLoader(dataset, batch_size=None, num_workers=args.workers)
    measure((images for images, _ in loader), args)
