"""Procedural images with exact masks: a stand-in for clinical ones, and never called anything else."""
