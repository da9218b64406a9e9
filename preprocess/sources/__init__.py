"""Where photos come from: folders, zips and tars, on disk or in object storage, read without unpacking.

    source = open_source(["s3://bucket/images_*.tar", "photos/"], cache, workers)
    source.locate(ids, paths=None)[0].read() -> bytes
"""
from preprocess.sources.photo_source import PhotoLocation, PhotoSource, open_source

__all__ = ["PhotoSource", "PhotoLocation", "open_source"]
