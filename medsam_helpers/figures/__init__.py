"""Figures: each function returns its Axes or Figure and shows nothing."""
