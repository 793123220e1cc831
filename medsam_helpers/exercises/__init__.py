"""Checkers of the notebooks' exercises, one module a notebook, loaded when one of its answers is checked."""
