"""Checkers of notebook 08, what helped on real images: all its answers stand in `answers.toml`."""
