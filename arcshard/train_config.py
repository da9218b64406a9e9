"""Options of the training loop."""
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrainConfig:
    """The run."""

    epochs: float = 10.0
    """Passes over the training split."""
    global_batch: int = 256
    """Images an update, over all ranks; a multiple of their number."""
    micro_batch: int | None = None
    """Images that a rank passes through the network at a time, a divisor of its part of global_batch; null: all of
    the part. Gradients add up to those of the whole, but BatchNorm sees these few images (see batchnorm)."""
    batchnorm: Literal["learned", "held"] = "learned"
    """learned: normalise by each micro-batch's own statistics; held: the backbone by those of its weights,
    which is right where weights are tuned (docs/accumulation-and-batchnorm.md); a neck's BatchNorm still learns."""
    size: int = 224
    """Side of the square images, pixels."""
    first_size: int | None = None
    """Side at the beginning, from which it grows to size in steps of 32 pixels; null: size all along."""
    size_warmup: float = 0.5
    """Share of the run after which the side is size, if first_size is given."""
    lr: float = 0.05
    """Peak learning rate of neck and head, for this global batch (1st place 2020: 0.05)."""
    backbone_lr: float = 1.0
    """The backbone's learning rate as a share of lr."""
    warmup: float = 0.1
    """Share of the run in which the learning rate rises from 0 (1st place: one epoch of ten)."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """What the learning rate does after the warmup: falls to 0 by half a cosine, or stays (2nd place: 0.01)."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with Nesterov momentum (1st place), or AdamW (3rd place: Adam, which is AdamW without weight_decay)."""
    momentum: float = 0.9
    """Nesterov momentum of SGD, beta1 of AdamW."""
    weight_decay: float = 1e-4
    """On weights, an L2 penalty for sgd, decoupled for adamw; biases, normalisation and GeM's exponent have none."""
    clip: float = 5.0
    """Largest norm of the gradient (1st place: 5)."""
    seed: int = 0
    """Chooses the initial weights, the order and every random view."""
    device: str = "auto"
    """auto (CUDA where there is a GPU), cpu or cuda."""
    amp: bool = True
    """bfloat16 autocast on CUDA; the head stays in float32."""
    compile: bool = True
    """torch.compile on CUDA (on the CPU it costs minutes and gains nothing)."""
    num_threads: int | None = None
    """Loader threads a rank; null takes its share of the cores."""
    log_every: int = 10
    """Updates between two lines of metrics.jsonl."""
    checkpoint_every: float = 1.0
    """Epochs between two checkpoints."""

    def __post_init__(self) -> None:
        for name in ("epochs", "global_batch", "size", "lr", "clip", "log_every", "checkpoint_every"):
            if getattr(self, name) <= 0:
                raise ValueError(f"train.{name} must be positive; got {getattr(self, name)}")
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ValueError(f"train.micro_batch must be positive, or null for all at once; got {self.micro_batch}")
        if self.num_threads is not None and self.num_threads < 1:
            raise ValueError(f"train.num_threads must be positive, or null for this rank's share of the cores; "
                             f"got {self.num_threads}")
        if self.weight_decay < 0 or not 0 <= self.momentum < 1:
            raise ValueError("train.weight_decay must not be negative and train.momentum lie in [0, 1); "
                             f"got {self.weight_decay} and {self.momentum}")
        if self.first_size is not None and not (0 < self.first_size <= self.size and 0 <= self.size_warmup <= 1):
            raise ValueError("train.first_size must lie in (0, train.size] and train.size_warmup in [0, 1]; got "
                             f"{self.first_size} for size {self.size}, and {self.size_warmup}")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"train.warmup is a share of the run in [0, 1]; got {self.warmup}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"train.device must be auto, cpu or cuda; got {self.device!r}")


# What may differ when a run continues: the rest would make it another run. Where lists of keys lie does not matter: the
# loader's state knows what they select.
MAY_CHANGE = {"select.subset", "select.block", "head.sharded"} | {f"train.{name}" for name in (
    "global_batch", "micro_batch", "device", "amp", "compile", "num_threads", "log_every", "checkpoint_every")}
OF_DATA = {"select.per_class", "select.balance"}  # and these with --allow-changed-data
