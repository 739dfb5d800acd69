"""Training, whatever the model: the trainer, its configuration, data loading, checkpoints."""
