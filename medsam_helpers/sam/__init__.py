"""Segment Anything models: checkpoints, one loader for all, embeddings that are kept, prompts in and masks out."""
