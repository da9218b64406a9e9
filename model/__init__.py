"""Batch -> embedding -> loss. Knows no loader."""
from model.embedder import Embedder, HeadConfig, ModelConfig, build_embedder, build_head
from model.heads import ArcFace

__all__ = ["ArcFace", "Embedder", "HeadConfig", "ModelConfig", "build_embedder", "build_head"]
