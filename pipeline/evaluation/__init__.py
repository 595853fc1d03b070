"""Evaluation: allocations on search images, chunk by chunk, and on validation images."""
