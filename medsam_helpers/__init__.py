"""Helpers of *MedSAM, step by step*: fine-tune, evaluate and prompt Segment Anything models on medical images."""

__version__ = "0.1.0"
