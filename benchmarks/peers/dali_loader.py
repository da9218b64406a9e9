"""DALI's own webdataset reader on arcshard's shards as its documentation has it: random crop, resize, flip.

Documentation: "WebDataset integration" and "ImageDecoder examples" of the user guide. fn.resize smooths (antialias)
unless --no-antialias asks it not to.
"""
import itertools
from typing import Any

import numpy as np
from loader_runner import AREA, ASPECT, measure, parse_args
from nvidia.dali import fn, pipeline_def, types

if __name__ == "__main__":
    args = parse_args(__doc__)
    tars = sorted(map(str, args.form.glob("dataset/train-*.tar")))

    @pipeline_def(batch_size=args.batch_size, num_threads=args.workers, device_id=None)
    def graph() -> Any:
        encoded, label = fn.readers.webdataset(  # type: ignore[misc]
            paths=tars, index_paths=[tar[:-3] + "idx" for tar in tars], ext=["jpg", "cls"], random_shuffle=True,
            initial_fill=1024, missing_component_behavior="error")
        images = fn.decoders.image_random_crop(encoded, random_area=list(AREA), random_aspect_ratio=list(ASPECT))
        images = fn.resize(images, size=(args.size, args.size), interp_type=types.INTERP_LINEAR,
                           antialias=not args.no_antialias)
        return fn.flip(images, horizontal=fn.random.coin_flip()), label

    pipeline = graph()
    pipeline.build()
    measure((np.asarray(pipeline.run()[0].as_tensor()) for _ in itertools.count()), args)
