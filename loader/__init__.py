"""Shards -> uint8 batches on the device, in a planned order."""
from loader.augment import View
from loader.loader import Batch, DeviceWait, Loader
from loader.plan import GrowingSize
from loader.streams import Selection
from loader.tuning import LoaderConfig, tune

__all__ = ["Batch", "DeviceWait", "GrowingSize", "Loader", "LoaderConfig", "Selection", "View", "tune"]
