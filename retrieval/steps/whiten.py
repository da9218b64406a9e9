"""Embeddings whitened, and cut to fewer dimensions, by PCA."""
from dataclasses import dataclass, replace
from pathlib import Path

from retrieval.state import State, Step, Vectors
from retrieval.whitening import Whitening, fit_whitening


@dataclass(frozen=True)
class Whiten(Step):
    """Each model's vectors projected onto their principal components, divided by the standard deviation there.

    Fitted to the gallery anew each time, or read from a file, which is faster where photos come one by one. After
    `concatenate`, with power 0, this is the winners' PCA of an ensemble.
    """

    file: str | None = None
    """A whitening that python -m retrieval whiten wrote; in a list in YAML, from that file's folder. null: fitted to
    the gallery."""
    dim: int | None = None
    """Components to keep; null: all."""
    power: float = 1.0
    """Of the standard deviation: 1 whitens, 0 only rotates. A file has its own."""

    def __call__(self, state: State) -> State:
        if self.file and self.power != 1:
            raise ValueError(f"{self.file} was written with a power of its own: leave out power")
        return replace(state, models=tuple(self.whiten(model) for model in state.models))

    def whiten(self, model: Vectors) -> Vectors:
        """The model's queries, gallery and non-landmarks in the new space, which has no class centers."""
        by = (Whitening.load(Path(self.file)).first(self.dim) if self.file else
              fit_whitening(model.gallery, self.dim, self.power))
        known = model.non_landmarks
        return replace(model, queries=by.apply(model.queries), gallery=by.apply(model.gallery),
                       non_landmarks=None if known is None else by.apply(known), centers=None)
