"""Checkers of notebook 11, SAM 2 and video: all its answers stand in `answers.toml`."""
