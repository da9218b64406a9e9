"""What a dataset folder holds, in one place for writer, reader and verifier; docs/format.md explains it.

dataset.json                  appears last; a folder without it is not a dataset
classes.csv, rejected.csv     label -> landmark_id; what could not be packed
SPLIT-000000.tar and .idx     WebDataset tar (USTAR) with members <key>.jpg, <key>.cls; DALI index v1.2 of it
SPLIT.index.npy               INDEX_DTYPE, one row a sample, in the order of the shards
SPLIT.labels.npy              int32, one a sample; -1: no landmark
SPLIT.truths.csv              only where samples have several true labels: all of them, the sample's own first
"""
import re
from collections.abc import Iterable, Iterator
from hashlib import blake2b

import numpy as np

FORMAT_VERSION = 1
MANIFEST = "dataset.json"
CLASSES = "classes.csv"
REJECTED = "rejected.csv"
CLASSES_COLUMNS = ["label", "landmark_id", "images", "name"]
REJECTED_COLUMNS = ["id", "split", "reason"]
TRUTHS_COLUMNS = ["id", "labels"]  # labels separated by spaces
UNFINISHED = ".packing"  # the packer's work folder inside an output that is not a dataset yet
REPAIRING = ".repair"  # the work folder of repair; a killed one leaves it, the next one removes it

NO_LANDMARK = -1
TAR_BLOCK = 512  # bytes: headers and data of a tar start at multiples of it

# A ustar name holds 100 bytes. DALI reads the longer GNU and PAX names silently wrong, takes the first dot
# for the start of the extension and a space for the end of the name (measured on DALI 2.4).
MAX_KEY = 100 - len(".jpg")
KEY_PATTERN = rf"[0-9a-z_-]{{1,{MAX_KEY}}}"
KEY_RULE = f"1 to {MAX_KEY} characters of 0-9, a-z, _ and -"
EXTENSION = r"\.[^./]*$"
HASH = 16  # characters (64 bits): two of 4 M different paths share a hash with a probability of 1 in 2 million
SPLIT_PATTERN = "[0-9a-z_]+"

# Where the photo's bytes lie in its tar (offset, size in bytes), their crc32, and its width and height in pixels.
INDEX_DTYPE = np.dtype([("shard", "<i4"), ("offset", "<i8"), ("size", "<i4"), ("width", "<i4"),
                        ("height", "<i4"), ("crc32", "<u4"), ("key", f"S{MAX_KEY}")])
LABEL_DTYPE = np.dtype("<i4")

SHARD_KINDS = (".tar", ".idx")


def is_key(text: str) -> bool:
    """Whether `text` can name a sample."""
    return re.fullmatch(KEY_PATTERN, text) is not None


def made_key(path: str) -> str:
    """A key for a path that is none: without extension, in lower case, - for each character that a key cannot have.

    It is cut at the front if too long, and ends in a hash of the whole path.
    """
    stem = re.sub("[^0-9a-z_-]", "-", re.sub(EXTENSION, "", path).lower())
    return f"{stem[-(MAX_KEY - HASH - 1):]}-{blake2b(path.encode(), digest_size=HASH // 2).hexdigest()}"


def key_text(key: bytes) -> str:
    """A key on one line of a message, whatever bytes a damaged index has there."""
    return repr(bytes(key))[2:-1]


def shard_name(split: str, number: int) -> str:
    """File name of a shard without extension: train-000012."""
    return f"{split}-{number:06d}"


def index_name(split: str) -> str:
    """File name of a split's index."""
    return f"{split}.index.npy"


def labels_name(split: str) -> str:
    """File name of a split's labels."""
    return f"{split}.labels.npy"


def truths_name(split: str) -> str:
    """File name of the samples of a split that have several true labels."""
    return f"{split}.truths.csv"


def split_files(split: str, shards: int) -> Iterator[str]:
    """Names of the files that every split of that many shards has."""
    yield from (index_name(split), labels_name(split))
    for number in range(shards):
        yield from (shard_name(split, number) + kind for kind in SHARD_KINDS)


def idx_text(rows: np.ndarray, labels: np.ndarray) -> str:
    """Text of the .idx of a shard of write_tar's: `rows` its index rows (INDEX_DTYPE), `labels` as many."""
    samples = zip(rows["key"].tolist(), rows["offset"].tolist(), rows["size"].tolist(), labels.tolist())
    return idx_of([("jpg", offset, size, key.decode()),
                   ("cls", offset + (-(-size // TAR_BLOCK) + 1) * TAR_BLOCK, len(str(label)), key.decode())]
                  for key, offset, size, label in samples)


def idx_of(samples: Iterable[list[tuple[str, int, int, str]]]) -> str:
    """Text of an .idx: extension, offset, size and key of each member of each sample, in the order of the tar.

    DALI's index, version 1.2: a first line `v1.2 SAMPLES`, then one line a sample with `extension offset size name` for
    each member, as wds2idx writes it (nvidia-dali 2.4, wds2idx.py).
    """
    lines = [" ".join(f"{extension} {offset} {size} {key}.{extension}" for extension, offset, size, key in members)
             for members in samples]
    return "\n".join([f"v1.2 {len(lines)}", *lines, ""])
