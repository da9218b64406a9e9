"""Shards -> uint8 batches on the device, in a planned order."""
from loader.loader import Batch, Handover, Loader
from loader.selection import Selection
from loader.sizes import GrowingSize
from loader.tuning import LoaderConfig, tune
from loader.views import View

__all__ = ["Batch", "GrowingSize", "Handover", "Loader", "LoaderConfig", "Selection", "View", "tune"]
