"""`medsam predict`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from medsam_helpers.cli.parser import Command, OfModel, Result
from medsam_helpers.data.reading import read_image
from medsam_helpers.errors import ConfigError, PromptError
from medsam_helpers.files import atomic_write, check_writable
from medsam_helpers.runs.settings import check_names

Point = tuple[float, float]


class Predict(Command, OfModel):
    """One mask for one image."""

    REPEATED: ClassVar = {"box": ("X0", "Y0", "X1", "Y1"), "point": ("X", "Y"), "background": ("X", "Y")}

    image: Path
    """The image's file."""
    box: tuple[tuple[float, float, float, float], ...] = ()
    """Round the lesion, in pixels; several boxes give the union of their masks."""
    point: tuple[Point, ...] = ()
    """On the lesion."""
    background: tuple[Point, ...] = ()
    """Beside the lesion."""
    output: Path = Path("mask.png")
    """A PNG file for the mask."""

    def run(self, line: str) -> Result:
        points = [*self.point, *self.background]
        if not self.box and not self.point:
            raise PromptError("no prompt: pass --box X0 Y0 X1 Y1, or --point X Y")
        if points and len(self.box) > 1:
            raise PromptError("points refine one box: pass several boxes, or one box with points")
        check_names(model=self.model, checkpoint=self.folder)
        output, file = self.output.expanduser(), self.image.expanduser()
        if output.suffix.lower() != ".png" or output.is_dir():
            raise ConfigError(f"{output}: the mask is written as PNG, so name a file that ends in .png")
        if output.exists() and file.exists() and output.samefile(file):
            raise ConfigError(f"{output} is the image itself, which the mask would overwrite: name another file")
        check_writable(output.parent)
        image = read_image(file)
        prompts = {"boxes": np.array(self.box)} if self.box else {}
        if points:
            labels = [1] * len(self.point) + [0] * len(self.background)
            prompts |= {"points": np.array(points), "labels": np.array(labels)}
        prediction = self.segmenter().predict(image, **prompts)
        mask = prediction.masks[:, 0].any(axis=0)
        with atomic_write(output) as temporary:
            Image.fromarray(mask.astype(np.uint8) * 255).save(temporary)
        scores = [round(float(score), 3) if np.isfinite(score) else None for score in prediction.scores[:, 0]]
        print(f"{output}: {int(mask.sum())} pixels ({mask.mean():.1%} of the image), model's own IoU guess {scores}")
        return {"mask": str(output), "area": int(mask.sum()), "iou_score": scores}
