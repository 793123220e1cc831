"""Fine-tune, evaluate and prompt Segment Anything models on medical images.

The names below are loaded when they are first used, so that importing the package takes no time.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    "data.case": ("Case", "Cases", "Dataset"),
    "data.loading": ("load_data",),
    "evaluation.evaluate": ("evaluate",),
    "evaluation.intervals": ("mean_interval",),
    "evaluation.metrics": ("dice", "iou"),
    "evaluation.tables": ("paired_gain", "summarise"),
    "exercises.checking": ("check",),
    "figures.cases": ("COLORS", "show_case"),
    "geometry": ("ImageTransform",),
    "phantoms.video": ("filmed", "phantom_video"),
    "prompts": ("jitter_boxes", "mask_to_boxes"),
    "runs.embed": ("embed_cases",),
    "runs.finetune": ("finetune", "get_or_train"),
    "runs.recorded": ("bootstrap_mean", "read_table", "recorded_gain"),
    "runs.settings": ("RunConfig", "config_from_environment"),
    "sam.embeddings": ("EmbeddingStore",),
    "sam.loading": ("load_sam",),
    "sam.segmenter": ("Segmenter",),
    "sam.tuned": ("load_checkpoint",),
    "training.loop": ("fit",),
    "training.recipes": ("Recipe", "get_recipe"),
    "video.tracking": ("BoxTracker", "track"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
__all__ = ["__version__", *_HOME]  # noqa: PLE0604  (names, all of them)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
