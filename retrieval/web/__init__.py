"""A small web app: drop a photo, see its landmark."""
from retrieval.web.answerer import Answer, Answerer, Match, RankedLandmark, SimilarPhoto, Unreadable
from retrieval.web.app import create_app
from retrieval.web.server import serve

__all__ = ["Answer", "Answerer", "Match", "RankedLandmark", "SimilarPhoto", "Unreadable", "create_app", "serve"]
