"""Batch -> embedding -> loss. Knows no loader."""
from model.embedder import Embedder, ModelConfig, UnitEmbedder, build_embedder
from model.head_config import HeadConfig, build_head
from model.heads import AdaFace, ArcFace, CosFace, MarginHead

__all__ = ["AdaFace", "ArcFace", "CosFace", "Embedder", "HeadConfig", "MarginHead", "ModelConfig", "UnitEmbedder",
           "build_embedder", "build_head"]
