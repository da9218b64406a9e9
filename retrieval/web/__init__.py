"""A small web app: drop a photo, see its landmark."""
from retrieval.web.answerer import Answerer, Match, Unreadable

__all__ = ["Answerer", "Match", "Unreadable"]
