"""The options that decide a dataset's bytes, next to the photos and their table."""
from dataclasses import asdict, dataclass
from typing import Any

from arcshard.console import UserError
from preprocess.images.formats import MAX_PIXELS

# What packing does to each photo; dataset.json records it beside the options.
PHOTO_FORM = {"jpeg": "baseline 4:2:0", "color": "sRGB", "resample": "gaussian-linear"}


@dataclass(frozen=True)
class PackOptions:
    """Options of a packing. Raises UserError for values out of range."""

    short_side: int | None = None
    """Pixels; photos whose short side is longer are scaled down to it. None: all keep their size."""
    quality: int = 90
    """JPEG quality (1-100) of the photos that must be encoded."""
    verify: bool = True
    """Whether a photo that keeps its bytes is decoded once; without it, damaged photos are packed too."""
    shard_size: int = 1000
    """Photos in a shard, before rejects."""
    seed: int = 0
    """Seed of the shuffle."""
    max_pixels: int = MAX_PIXELS
    """Photos with more are rejected."""

    def __post_init__(self) -> None:
        for name in ("short_side", "quality", "shard_size", "max_pixels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} is {value}: give at least 1")
        if self.quality > 100:
            raise UserError(f"--quality is {self.quality}: give 1 to 100")

    def record(self) -> dict[str, Any]:
        """What dataset.json says about them."""
        told = asdict(self) | PHOTO_FORM
        if self.max_pixels == MAX_PIXELS:  # earlier versions knew no other
            del told["max_pixels"]
        return told


def refuse_changes(out: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise UserError that names each value of `now` that `before` does not have."""
    if made := [how for how in ("adopted", "repaired") if before.get(how)]:
        raise UserError(f"{out} was {made[0]}, so the options that it was packed with are unknown and nothing can be "
                        "added to it or compared with it: choose another --out")
    before, now = _in_present_words(before), _in_present_words(now)
    changes = [f"{name} was {before.get(name)}, is {value}" for name, value in now.items()
               if before.get(name) != value]
    if changes:
        raise UserError(f"{out} was packed with other options ({'; '.join(changes)}): repeat those, "
                        "or choose another --out")


def _in_present_words(packing: dict[str, Any]) -> dict[str, Any]:
    """What earlier versions recorded, in today's words: colour is color, area (never used) is gaussian-linear, and
    without max_pixels it was the default."""
    present = {"color" if name == "colour" else name: value for name, value in packing.items()}
    if present.get("resample") == "area":
        present["resample"] = PHOTO_FORM["resample"]
    return {"max_pixels": MAX_PIXELS} | present
