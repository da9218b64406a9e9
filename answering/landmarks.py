"""What people call a landmark."""
from urllib.parse import unquote

from retrieval.metrics import NO_LANDMARK
from shards import Dataset


def landmark(label: int, gallery: Dataset) -> list[str]:
    """Id, and title if the dataset has names; nothing for no landmark."""
    if label == NO_LANDMARK:
        return []
    known = gallery.landmark_ids[label]
    return [word for word in (known, title(gallery.landmark_names[known])) if word]


def title(name: str) -> str:
    """The category of a Wikimedia Commons URL, which train_label_to_category.csv has, in words; else the name."""
    return unquote(name.rpartition("/Category:")[2]).replace("_", " ")
