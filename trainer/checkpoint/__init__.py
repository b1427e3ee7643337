"""Checkpoints as tensors, and writing them beside the training."""
