"""Embeddings -> neighbours -> answers -> metrics -> submission: arrays in and out, no loader, no training."""
from retrieval.answers import vote
from retrieval.evaluation import Evaluation, evaluate
from retrieval.metrics import count_relevant, gap, gap_landmark_only, map_at_k, recall_at_k
from retrieval.neighbours import nearest
from retrieval.store import Embeddings
from retrieval.submission import write_submission

__all__ = ["Embeddings", "Evaluation", "count_relevant", "evaluate", "gap", "gap_landmark_only", "map_at_k",
           "nearest", "recall_at_k", "vote", "write_submission"]
