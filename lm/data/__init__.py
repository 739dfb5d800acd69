"""From token shards to training data: vocabulary, fields, store, mixture."""
