"""A part: the folder in which a finished task keeps its shard until the dataset is published.

.packing/train-000012/ holds shard.tar, shard.idx, rows.npy (index rows), labels.npy and part.json: the number of
samples, the rejected photos with their reasons, size and sha256 of tar and idx.
"""
TAR, IDX, ROWS, LABELS, PART = "shard.tar", "shard.idx", "rows.npy", "labels.npy", "part.json"
SCRATCH = "scratch-"  # prefix of folders that a killed task leaves behind
