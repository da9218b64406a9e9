"""Shards -> uint8 batches on the device, in a planned order."""
from loader.loader import Batch, Loader
from loader.views import View

__all__ = ["Batch", "Loader", "View"]
