"""Photos that occur in several splits: exact and near duplicates."""
