"""Photos that occur in several splits, exactly or nearly."""
