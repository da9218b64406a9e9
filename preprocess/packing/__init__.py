"""Sample table + photos -> dataset: one independent task a shard, published when all are done."""
