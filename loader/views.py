"""How a photo becomes a training image: the options. What they mean is drawn in framing.py, warping.py, colours.py."""
from dataclasses import dataclass
from typing import Literal

Framing = Literal["crop", "squash", "short", "long", "short-or-squash"]


@dataclass(frozen=True)
class View:
    """What is drawn for each training image."""

    framing: Framing = "crop"
    """crop: a random box of area and aspect; squash: a box of side times the photo's width and height; short: a square
    of side times its short side; long: one of side times its long side, black around the photo; short-or-squash:
    either, by the toss of a coin (2nd place 2020, variant 3b). Evaluation takes the whole of it, in the middle; for
    crop, the photo squashed."""
    side: float = 1.0
    """Share of the side that framings other than crop keep, at a random place (1st place 2020: 448 of 512)."""
    area: tuple[float, float] = (0.1, 1.0)
    """Crop's share of the photo's area, uniform between these."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Crop's width / height before it is resized to a square, log-uniform between these."""
    flip: float = 0.5
    """Probability of a left-right flip."""
    warp: float = 1.0
    """Probability that rotate, scale and shift apply (3rd place: 0.7)."""
    rotate: float = 0.0
    """Turn by an angle uniform in ± this, degrees, black where the photo ends (3rd place: 10)."""
    scale: float = 0.0
    """Enlarge by a factor uniform in 1 ± this (3rd place: 0.2)."""
    shift: float = 0.0
    """Shift by shares of the box's width and height uniform in ± this (3rd place: 0.2)."""
    brightness: float = 0.0
    """Pixel values times a factor uniform in 1 ± this."""
    contrast: float = 0.0
    """Distance from the image's mean grey times a factor uniform in 1 ± this."""
    saturation: float = 0.0
    """Distance from each pixel's own grey times a factor uniform in 1 ± this."""
    cutout: float = 0.0
    """Probability of a black square hole (3rd place: 0.5)."""
    cutout_side: float = 0.4
    """The hole's side as a share of the image's; at the border less of it lies inside (3rd place: 0.4)."""
    jpeg: tuple[int, int] | None = None
    """JPEG qualities between which each image is once more compressed; null: not at all (3rd place: [99, 100])."""
    randaugment: int = 0
    """Operations drawn for each image from RandAugment's set as the 2nd place had it (variant 3b: 3)."""

    def __post_init__(self) -> None:
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(f"area must be two rising shares in (0, 1]; got {self.area}")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError(f"aspect must be two rising positive ratios; got {self.aspect}")
        for name in ("flip", "warp", "brightness", "contrast", "saturation", "cutout", "cutout_side", "shift"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1]; got {getattr(self, name)}")
        if not 0 < self.side <= 1:
            raise ValueError(f"side must lie in (0, 1]; got {self.side}")
        if not 0 <= self.scale < 1:
            raise ValueError(f"scale must lie in [0, 1); got {self.scale}")
        if not 0 <= self.rotate <= 180:
            raise ValueError(f"rotate must lie in [0, 180] degrees; got {self.rotate}")
        if self.jpeg is not None and not 1 <= self.jpeg[0] <= self.jpeg[1] <= 100:
            raise ValueError(f"jpeg must be two rising qualities in 1 to 100, or null; got {self.jpeg}")
        if self.randaugment < 0:
            raise ValueError(f"randaugment must not be negative; got {self.randaugment}")

    def in_evaluation(self) -> "View":
        """The same framing, and nothing random."""
        return View(framing=self.framing)

    @property
    def warps(self) -> bool:
        """Whether images may be other than a box inside the photo."""
        return bool(self.framing == "long" or self.rotate or self.scale or self.shift or self.randaugment)

    @property
    def has_holes(self) -> bool:
        """Whether images may have holes or be stretched to full contrast."""
        return bool(self.cutout or self.randaugment)
