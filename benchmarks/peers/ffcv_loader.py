"""FFCV's Loader as ffcv-imagenet trains with it (train_imagenet.py, create_train_loader), up to the uint8 tensor.

In memory (os_cache), quasi-random order, decode of JPEG and random resized crop compiled by Numba.
"""
from ffcv.fields.basics import IntDecoder
from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import RandomHorizontalFlip, Squeeze, ToTensor
from loader_runner import AREA, ASPECT, measure, parse_args

if __name__ == "__main__":
    args = parse_args(__doc__)
    decoder = RandomResizedCropRGBImageDecoder((args.size, args.size), scale=AREA, ratio=ASPECT)
    loader = Loader(str(args.form / "ffcv" / "photos.beton"), batch_size=args.batch_size, num_workers=args.workers,
                    order=OrderOption.QUASI_RANDOM, os_cache=True, drop_last=True,
                    pipelines={"image": [decoder, RandomHorizontalFlip(), ToTensor()],
                               "label": [IntDecoder(), ToTensor(), Squeeze()]})
    measure((images for images, _ in loader), args)
