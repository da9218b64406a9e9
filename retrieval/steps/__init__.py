"""The steps that a list in YAML may name; each is a dataclass of its numbers that takes a State and returns one."""
from retrieval.state import Step
from retrieval.steps.class_count import ClassCountPenalty
from retrieval.steps.concatenate import Concatenate
from retrieval.steps.frequent import FrequentClass
from retrieval.steps.head import Head, HeadNeighbors, HeadVote
from retrieval.steps.label_rerank import LabelRerank
from retrieval.steps.local_features import LocalFeatures
from retrieval.steps.merge import Merge
from retrieval.steps.non_landmarks import GalleryPenalty, NonLandmarkRule, QueryPenalty
from retrieval.steps.quantile import Quantile
from retrieval.steps.reciprocal import KReciprocal
from retrieval.steps.rerank import Rerank
from retrieval.steps.search import Search
from retrieval.steps.smoothing import DatabaseAugmentation, QueryExpansion
from retrieval.steps.super_global import SuperGlobal
from retrieval.steps.vote import Vote
from retrieval.steps.whiten import Whiten

STEPS: dict[str, type[Step]] = {
    "concatenate": Concatenate, "whiten": Whiten, "quantile": Quantile, "database_augmentation": DatabaseAugmentation,
    "query_expansion": QueryExpansion, "gallery_penalty": GalleryPenalty, "class_count_penalty": ClassCountPenalty,
    "search": Search, "super_global": SuperGlobal, "k_reciprocal": KReciprocal, "merge": Merge,
    "local_features": LocalFeatures, "head_neighbors": HeadNeighbors, "vote": Vote, "head": Head, "head_vote": HeadVote,
    "query_penalty": QueryPenalty, "non_landmark_rule": NonLandmarkRule, "frequent_class": FrequentClass,
    "rerank": Rerank, "label_rerank": LabelRerank}
NAMES: dict[type[Step], str] = {step: name for name, step in STEPS.items()}
