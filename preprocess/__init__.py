"""Raw photos and a CSV -> sample table -> dataset of shards."""
