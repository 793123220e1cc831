"""Drag a box over an image in JupyterLab and see the mask. Needs the extra `widget`: anywidget and ipywidgets.

def predict(image, boxes, points):  # (H, W, 3) uint8, (N, 4) xyxy, (K, 3) of x, y, label
    return image.mean(axis=2) > 128  # (H, W) bool, or one mask a box: (N, H, W), or (masks, scores)

BoxPrompt(image, predict)  # or a `Segmenter`, or a dict of several models by name: side by side
VideoPrompt(frames, segmenter)  # a slider through a video, the mask followed from frame to frame
box_prompt_demo()  # the same with pickers of image and model, upload, undo and saving
"""

from importlib import import_module
from typing import Any

_HOMES = {"BoxPrompt": "box_prompt", "VideoPrompt": "video", "box_prompt_demo": "demo"}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
