"""`medsam predict`."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tqdm.auto import tqdm

from medsam_helpers.cli.parser import Command, OfModel, Result
from medsam_helpers.data.case import Finding
from medsam_helpers.data.pairing import files_by_stem
from medsam_helpers.data.reading import read_image, write_mask
from medsam_helpers.errors import ConfigError, DataError, PromptError, some
from medsam_helpers.files import check_writable
from medsam_helpers.runs.settings import check_names


class Predict(Command, OfModel):
    """One mask for one image, or for each of a folder."""

    EXAMPLE: ClassVar[str] = "--checkpoint runs/first --image polyp.jpg --box 120 80 300 260 --output mask.png"
    REPEATED: ClassVar = {"box": ("X0", "Y0", "X1", "Y1"), "point": ("X", "Y"), "background": ("X", "Y")}
    RESUMES: ClassVar[bool] = True

    image: Path
    """The image's file, or a folder of images, for a model that needs no prompt; masks that are there already stay."""
    box: tuple[tuple[float, float, float, float], ...] = ()
    """Round the lesion, in pixels; several boxes give the union of their masks."""
    point: tuple[tuple[float, float], ...] = ()
    """On the lesion."""
    background: tuple[tuple[float, float], ...] = ()
    """Beside the lesion."""
    output: Path = Path("mask.png")
    """A PNG file for the mask; for a folder of images the folder of their masks."""

    def run(self, line: str) -> Result:
        check_names(model=self.model, checkpoint=self.folder)
        output, source = self.output.expanduser(), self.image.expanduser()
        if source.is_dir():
            return self._each_of(source, output)
        points = [*self.point, *self.background]
        if points and len(self.box) > 1:
            raise PromptError("points refine one box: pass several boxes, or one box with points")
        if output.suffix.lower() != ".png" or output.is_dir():
            raise ConfigError(f"{output}: the mask is written as PNG, so name a file that ends in .png")
        if output.exists() and source.exists() and output.samefile(source):
            raise ConfigError(f"{output} is the image itself, which the mask would overwrite: name another file")
        check_writable(output.parent)
        image = read_image(source)
        prompts = {"boxes": np.array(self.box)} if self.box else {}
        if points:
            labels = [1] * len(self.point) + [0] * len(self.background)
            prompts |= {"points": np.array(points), "labels": np.array(labels)}
        prediction = self._segmenter().predict(image, **prompts)
        mask = prediction.masks[:, 0].any(axis=0)
        write_mask(mask, output)
        scores = [round(float(score), 3) if np.isfinite(score) else None for score in prediction.scores[:, 0]]
        told = f", model's own IoU guess {scores}" if any(scores) else ""
        print(f"{output}: {int(mask.sum())} pixels ({mask.mean():.1%} of the image){told}")
        return {"mask": str(output), "area": int(mask.sum()), "iou_score": scores}

    def _segmenter(self) -> Any:
        """The model; a `PromptError` where it has to be told more than it was."""
        segmenter = self.segmenter()
        if not self.box and not self.point and (self.background or segmenter.needs_prompt):
            raise PromptError("no prompt: pass --box or --point with one image, or a checkpoint of --recipe automatic")
        return segmenter

    def _each_of(self, source: Path, output: Path) -> Result:
        """A mask for each image of a folder, under its stem."""
        if self.box or self.point or self.background:
            raise PromptError(f"{source} is a folder, each image of which needs a box of its own: pass a single image")
        if output.suffix.lower() == ".png" or (output.exists() and output.samefile(source)):
            raise ConfigError(f"{output}: masks of a folder of images need a folder of their own: name one as --output")
        check_writable(output)
        others: list[Finding] = []
        found = files_by_stem(source, others)
        if not found:
            raise DataError(f"{source} holds no image; left out: {some([one.detail for one in others]) or 'nothing'}")
        if same := [", ".join(file.name for file in files) for files in found.values() if len(files) > 1]:
            raise DataError(f"{source}: these would have one mask, so rename all but one: {'; '.join(same)}")
        missing = {stem: file for stem, (file,) in found.items() if not (output / f"{stem}.png").exists()}
        segmenter, unreadable = self._segmenter(), list[str]()
        for stem, file in tqdm(missing.items(), desc="predict", unit="image"):
            try:
                write_mask(segmenter.predict(read_image(file)).masks[0, 0], output / f"{stem}.png")
            except DataError as error:
                unreadable.append(str(error))
        for told in (*unreadable, *(f"left out: {other.detail}" for other in others)):
            print(told)
        result = {"folder": str(output), "written": len(missing) - len(unreadable), "kept": len(found) - len(missing)}
        print("{folder}: {written} masks written, {kept} were there".format(**result))
        return result | {"unreadable": unreadable, "exit_status": int(bool(unreadable))}
