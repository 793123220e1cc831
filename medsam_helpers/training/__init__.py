"""Losses, recipes, and the loop that trains on cached embeddings."""
