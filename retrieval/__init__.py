"""Embeddings -> neighbors -> answers -> metrics -> submission: arrays in and out.

What needs the network of a run is in retrieval.run.
"""
from retrieval.evaluation import Evaluation, QuerySet, answer, evaluate
from retrieval.metrics import count_relevant, gap, gap_landmark_only, map_at_k, recall_at_k
from retrieval.pipeline import Pipeline, read_pipeline
from retrieval.search import nearest
from retrieval.state import Candidates, Vectors
from retrieval.store import Embeddings
from retrieval.submission import write_submission

__all__ = ["Candidates", "Embeddings", "Evaluation", "Pipeline", "QuerySet", "Vectors", "answer", "count_relevant",
           "evaluate", "gap", "gap_landmark_only", "map_at_k", "nearest", "read_pipeline", "recall_at_k",
           "write_submission"]
