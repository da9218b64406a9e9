"""The on-disk format: tar shards, their indexes, one manifest that binds them. No torch, no DALI.

    from shards import Dataset
    ds = Dataset("data/x", split="train")
    len(ds), ds.labels, ds.read(0)
"""
from shards.dataset import CorruptSample, Dataset, splits
from shards.remote import CacheConfig

__all__ = ["CacheConfig", "CorruptSample", "Dataset", "splits"]
