"""`medsam track`."""

import json
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import model_validator

from medsam_helpers.cli.parser import Command, OfModel, Result
from medsam_helpers.data.pairing import files_by_stem
from medsam_helpers.data.reading import read_mask, write_mask
from medsam_helpers.errors import ConfigError, DataError, some
from medsam_helpers.files import check_writable, new_folder
from medsam_helpers.runs.settings import check_names


class Track(Command, OfModel):
    """Follow a lesion through a video, forward and backward, from a box on one frame."""

    EXAMPLE: ClassVar[str] = "--checkpoint runs/first --video in.mp4 --frame 0 --box 120 80 300 260 --output followed"
    REPEATED: ClassVar = {"frame": "N", "box": ("X0", "Y0", "X1", "Y1")}

    video: Path | None = None
    """A video file; needs PyAV."""
    frames: Path | None = None
    """In place of a video a folder of its frames, as pictures in the order of their names."""
    frame: tuple[int, ...]
    """The frame of the box, from 0; again, with a box of its own, for a correction."""
    box: tuple[tuple[float, float, float, float], ...]
    """Round the lesion on that frame, in pixels."""
    memory: bool = False
    """With SAM 2's memory, not frame by frame; for a SAM 2 as --model."""
    truth: Path | None = None
    """A folder of the frames' references, under the same stems: the masks are scored, but for those of the boxes."""
    output: Path
    """A new folder: for each frame its mask, track.json, and where PyAV is installed overlay.mp4."""

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if (self.video is None) == (self.frames is None):
            raise ConfigError("pass either --video or --frames")
        if len(self.frame) != len(self.box) or len(set(self.frame)) < len(self.frame):
            raise ConfigError(f"{len(self.box)} boxes for frames {list(self.frame)}: give each --frame one --box")
        if self.memory and (not self.model or self.tta):
            raise ConfigError("--memory takes a SAM 2 as --model, and no --tta")
        return self

    def run(self, line: str) -> Result:
        check_names(model=self.model, checkpoint=self.folder)
        check_writable(output := self.output.expanduser())
        from medsam_helpers.video.frames import frame_files, overlaid, write_video
        from medsam_helpers.video.scores import score_sequence
        from medsam_helpers.video.tracking import frame_image, track

        files, tracker = frame_files(self.video or self.frames or ""), self._tracker()
        prompts = {number: np.array(box) for number, box in zip(self.frame, self.box, strict=True)}
        found_there = files_by_stem(self.truth.expanduser(), []) if self.truth else {}
        references = {stem: several[0] for stem, several in found_there.items()}
        if self.truth and (missing := [file.stem for file in files if file.stem not in references]):
            raise DataError(f"{self.truth}: no reference of {some(missing)}: they bear the frames' names")
        told: dict[int, dict[str, Any]] = {}
        with new_folder(output) as folder:
            (folder / "masks").mkdir()
            for number, (mask, score) in track(tracker, files, prompts):
                write_mask(mask, folder / "masks" / f"{files[number].stem}.png")
                row = {"frame": number, "file": files[number].name, "area": int(mask.sum()), "score": round(score, 3)}
                told[number] = row | {"lost": not mask.any()}
            rows = [told[number] for number in sorted(told)]
            paths = {file.stem: folder / "masks" / f"{file.stem}.png" for file in files}
            scores: dict[str, float | None] = {}
            if references:
                asked = [file.stem for number, file in enumerate(files) if number not in prompts]
                drawn, right = ([read_mask(places[stem]).mask for stem in asked] for places in (paths, references))
                found = score_sequence(drawn, right)
                scores = {name: round(value, 3) if np.isfinite(value) else None for name, value in found.items()}
                print("; ".join(f"{name} {value}" for name, value in scores.items()))
            card = {"command": line, "scores": scores, "frames": rows}
            (folder / "track.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
            try:
                masks = (read_mask(path).mask for path in paths.values())
                write_video(folder / "overlay.mp4", map(overlaid, map(frame_image, files), masks))
            except ConfigError as error:
                print(error)
        lost = [row["frame"] for row in rows if row["lost"]]
        print(f"{output}: {len(rows)} masks; empty, the lesion lost or out of sight, in {len(lost)}")
        return {"folder": str(output), "frames": len(rows), "lost": lost, "scores": scores}

    def _tracker(self) -> Any:
        if self.memory:
            from medsam_helpers.sam.loading import load_sam
            from medsam_helpers.video.memory import MemoryTracker

            return MemoryTracker(load_sam(str(self.model), memory=True))
        from medsam_helpers.video.tracking import BoxTracker

        return BoxTracker(self.segmenter())
