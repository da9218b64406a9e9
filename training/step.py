"""What a training step computes forward, as one module."""
from typing import Any

from torch import Tensor, nn

from model.batchnorm import hold_statistics
from model.embedder import Embedder
from model.heads import MarginHead
from training.train_config import TrainConfig


class Step(nn.Module):
    """Embedder and head: one module for DDP and torch.compile."""

    def __init__(self, embedder: Embedder, head: MarginHead):
        super().__init__()
        self.embedder, self.head = embedder, head

    def forward(self, images: Tensor, jitter: Tensor, labels: Tensor) -> Tensor:
        return self.head(self.embedder(images, jitter), labels)

    def weights(self) -> dict[str, Any]:
        """The states as a checkpoint holds them: the embedder's can be used alone. All ranks must ask."""
        return {"embedder": self.embedder.state_dict(), "head": self.head.whole().state_dict()}

    def load_weights(self, saved: dict[str, Any]) -> None:
        """What `weights` gave, or a checkpoint with it."""
        self.embedder.load_state_dict(saved["embedder"])
        self.head.load_state_dict(saved["head"])


def train_mode(step: Step, c: TrainConfig, epoch: float) -> None:
    """Let learn what learns in this epoch; the rest, and BatchNorm's statistics where they are held, stays."""
    step.train()
    if c.frozen == "backbone":
        step.embedder.backbone.eval()
    if c.batchnorm == "held":
        hold_statistics(step.embedder.backbone)
    if c.batchnorm_frozen_from is not None and epoch >= c.batchnorm_frozen_from:
        hold_statistics(step)
