"""A small web app: drop a photo, see its landmark."""
from retrieval.web.answerer import Answerer, Match, Unreadable
from retrieval.web.app import create_app
from retrieval.web.server import serve

__all__ = ["Answerer", "Match", "Unreadable", "create_app", "serve"]
