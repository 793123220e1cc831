"""How well and how fast a lesion is followed through videos of phantoms, beside what looks at no frame.

A line of JSON a video, and one of their means. The seeds 0 to 5 were looked at while the tracker was written; others
were not. Seconds a frame are of the wall clock, encoding included. With `--memory` SAM 2 with random weights of tiny's
size in place of the tracker, for its time and for what its session keeps of each frame: masks mean nothing there.

    python benchmarks/follow_video.py [--model NAME] [--seeds N,N] [--frames N] [--threads N] [--memory] [--output DIR]
"""
# make bench: --seeds 10 --frames 20

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from medsam_helpers.device import default_device
from medsam_helpers.phantoms.video import phantom_video
from medsam_helpers.runs.card import write_run_card
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.video.memory import MemoryTracker
from medsam_helpers.video.scores import baselines, score_sequence
from medsam_helpers.video.tracking import BoxTracker, track


def memory_tracker() -> MemoryTracker:
    """SAM 2 of the smallest published size; prints what the session of `transformers` keeps of a frame for good."""
    from transformers import Sam2VideoConfig, Sam2VideoModel
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    tracker = MemoryTracker(Sam2VideoModel(Sam2VideoConfig()))
    session = Sam2VideoInferenceSession(inference_device=tracker.device, dtype=torch.float32)
    session.add_mask_inputs(session.obj_id_to_idx(1), 0, torch.ones(1, 1, 1024, 1024))
    session.obj_with_new_inputs = [1]
    with torch.inference_mode():
        for _ in range(2):
            tracker.model(session, frame=torch.zeros(1, 3, 1024, 1024, device=tracker.device))
    kept = {"pixels": session.processed_frames[1]} | session.output_dict_per_obj[0]["non_cond_frame_outputs"][1]
    sizes = {name: round(one.nbytes / 1e6, 2) for name, one in kept.items()}
    print(json.dumps({"kept_of_a_frame_mb": round(sum(sizes.values()), 1)} | sizes))
    return tracker


def main() -> None:
    """Parse, follow, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="kvasir-polyps")
    parser.add_argument("--seeds", default="10,11,12,13,14,15")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--least", type=float, help="default: the tracker's own")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--output", type=Path, help="a folder for metrics.csv and run_card.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory:
        tracker = memory_tracker()
    else:
        options = {} if args.least is None else {"least": args.least}
        tracker = BoxTracker(Segmenter.load(args.model), **options)
    rows, digests, started = [], [], time.perf_counter()
    for seed in map(int, args.seeds.split(",")):
        video = phantom_video(seed, args.frames)
        digests.append(video.digest)
        frames = list(video)  # drawn before the clock starts
        truths = [frame.mask for frame in frames]
        began, used = time.perf_counter(), time.process_time()
        found = dict(track(tracker, frames, {0: truths[0]}, show_progress=False))
        clocks = time.perf_counter() - began, time.process_time() - used
        row = {"seed": seed} | score_sequence([found[n].mask for n in range(1, len(frames))], truths[1:])
        for name, mask in baselines(truths[0]).items():
            row[name] = score_sequence([mask] * (len(frames) - 1), truths[1:])["dice"]
        row |= {"seconds_a_frame": clocks[0] / len(frames), "processor_seconds_a_frame": clocks[1] / len(frames)}
        rows.append(row)
        print(json.dumps({name: round(float(value), 3) for name, value in row.items()}), flush=True)
    mean = {name: round(float(value), 3) for name, value in pd.DataFrame(rows).drop(columns="seed").mean().items()}
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).round(6).to_csv(args.output / "metrics.csv", index=False)
        digest = hashlib.sha256("".join(digests).encode()).hexdigest()
        about = {"model": args.model, "frames": args.frames, "metrics": mean}
        seconds = time.perf_counter() - started
        write_run_card(args.output / "run_card.json", command=sys.argv, data_digest=digest, seconds=seconds, **about)
    print(json.dumps({"model": args.model, "device": default_device().type, "videos": len(rows)} | mean))


if __name__ == "__main__":
    main()
