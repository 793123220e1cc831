"""Drag a box over an image in JupyterLab and see the mask. Needs the extra `widget`: anywidget and ipywidgets.

The widget with any model, in five lines:

    from medsam_helpers.widgets import BoxPrompt

    def predict(image, boxes, points):  # (H, W, 3) uint8, (N, 4) xyxy, (K, 3) of x, y, label
        return image.mean(axis=2) > 128  # (H, W) bool, or one mask a box: (N, H, W), or (masks, scores)

    BoxPrompt(image, predict)

A `Segmenter` may stand in the function's place, and a dict of several by name shows them side by side.
`box_prompt_demo()` adds the pickers of image and model, upload, undo and saving.
"""

from medsam_helpers.widgets.box_prompt import BoxPrompt
from medsam_helpers.widgets.demo import BoxPromptDemo, box_prompt_demo
from medsam_helpers.widgets.predictors import EmbeddingCache, SegmenterPredictor

__all__ = ["BoxPrompt", "BoxPromptDemo", "EmbeddingCache", "SegmenterPredictor", "box_prompt_demo"]
