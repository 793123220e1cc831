"""Damaged files, nonsense settings, kills and hostile requests, many of each: what was tried, and what went wrong.

    python tools/campaign.py                    all of it, some ten minutes
    python tools/campaign.py --only damage settings

Right is: a result, or one of the package's own errors in a line; after a kill, the same command goes on to the very
bytes of an undisturbed run. Everything else is listed, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
PATIENCE_S = 60
Wrong = list[str]


def undamaged(place: Path) -> None:
    """Write a tiny model, a data set and a finished run: `tiny`, `data`, `run`."""
    from helpers import draw_discs, make_tiny_sam, save_images

    make_tiny_sam().save_pretrained(place / "tiny")
    save_images(draw_discs(8), place / "data", n_train=5)
    (place / "groups.csv").write_text("name,patient\n" + "".join(f"disc-{i},p{i}\n" for i in range(8)))
    assert medsam(place, finetune("run")).returncode == 0


def finetune(output: str) -> list[str]:
    """Arguments of the run that everything here is about."""
    options = "--data data --model tiny --epochs 3 --batch 2 --precision fp32 --recipe quick --output"
    return ["finetune", *options.split(), output]


def medsam(place: Path, arguments: list[str], cache: str = "cache") -> subprocess.CompletedProcess[str]:
    """A finished command in a process of its own."""
    process = start(place, arguments, cache)
    out, err = process.communicate()
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def start(place: Path, arguments: list[str], cache: str) -> subprocess.Popen[str]:
    """A command that runs in a process of its own."""
    environment = os.environ | {"MEDSAM_CACHE": str(place / cache), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "medsam_helpers", *arguments]
    return subprocess.Popen(
        command, cwd=place, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


# --- damaged files ---


def damages(data: bytes, rng: random.Random) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Ways to spoil a file of this content, by name."""
    for share in (0.0, 0.02, 0.3, 0.7, 0.99):
        yield f"cut at {share:.0%}", lambda path, share=share: path.write_bytes(data[: int(share * len(data))])
    for number in range(8):
        spoilt = bytearray(data)
        for _ in range(1 + 3 * number):
            spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
        yield f"{1 + 3 * number} bits flipped", lambda path, spoilt=spoilt: path.write_bytes(spoilt)
    yield "noise", lambda path: path.write_bytes(rng.randbytes(1000))
    yield "zeros", lambda path: path.write_bytes(bytes(len(data)))
    yield "nested", lambda path: path.write_bytes(b"[" * 100_000)
    yield "another's bytes", lambda path: path.write_bytes(b'{"base": 1, "base_digest": [2], "a": {"b": null}}')
    yield "a folder", lambda path: (path.unlink(), path.mkdir())
    yield "a dangling link", lambda path: (path.unlink(), path.symlink_to("nowhere"))
    yield "missing", lambda path: path.unlink()


def readers(place: Path) -> dict[str, Callable[[], object]]:
    """What reads each file of `place`."""
    from medsam_helpers.data.audit import audit
    from medsam_helpers.data.loading import load_data
    from medsam_helpers.runs.recorded import read_table
    from medsam_helpers.runs.seen import read_seen
    from medsam_helpers.sam.embeddings import EmbeddingStore
    from medsam_helpers.sam.loading import load_sam, model_info
    from medsam_helpers.sam.tuned import load_checkpoint
    from medsam_helpers.training.state import TrainingState

    state = place / "run" / "training_state.safetensors"

    def stored() -> object:
        store = EmbeddingStore.for_model(info, "fp32", place / "cache" / "image-embeddings")
        return [store.holds(path.stem) or store.put(path.stem, embedding) for path in embeddings]

    info = model_info(load_sam(place / "tiny", show_progress=False))
    embeddings = sorted((place / "cache" / "image-embeddings").glob("*/*/*.safetensors"))
    import torch

    embedding = torch.zeros(32, 16, 16)
    relative = {str(path.relative_to(place)): stored for path in (embeddings[0], embeddings[0].parents[1] / "key.json")}
    from safetensors import safe_open

    with safe_open(state, framework="pt") as file:
        identity = json.loads(file.metadata()["run"])["identity"]
    return {
        "data/images/disc-1.png": lambda: load_data(place / "data"),
        "data/masks/disc-1.png": lambda: (audit(place / "data", show_progress=False), load_data(place / "data")),
        "data/train.txt": lambda: load_data(place / "data"),
        "groups.csv": lambda: load_data(place / "data", group_by=str(place / "groups.csv")),
        "tiny/config.json": lambda: load_sam(place / "tiny", show_progress=False),
        "tiny/model.safetensors": lambda: load_sam(place / "tiny", show_progress=False),
        "run/decoder.safetensors": lambda: load_checkpoint(place / "run"),
        "run/run_card.json": lambda: load_checkpoint(place / "run"),
        "run/seen_images.csv": lambda: read_seen(place / "run"),
        "run/metrics.csv": lambda: read_table(place / "run" / "metrics.csv"),
        "run/training_state.safetensors": lambda: TrainingState.open(state, identity),
        **relative,
    }


def try_damage(place: Path, rng: random.Random) -> tuple[int, Wrong]:
    """Every reader on its file, spoilt in every way; nothing else than a result or an own error is right."""
    tried, wrong = 0, Wrong()
    for name, read in readers(place).items():
        path = place / name
        kept = path.read_bytes()
        pipe = [("a pipe", lambda path: (path.unlink(), os.mkfifo(path)))] if name.startswith("data/") else []
        for damage, spoil in (*damages(kept, rng), *pipe):
            spoil(path)
            tried += 1
            if told := _what_went_wrong(read):
                wrong.append(f"{name}, {damage}: {told}")
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            path.unlink(missing_ok=True)
            path.write_bytes(kept)
    return tried, wrong


def _what_went_wrong(act: Callable[[], object]) -> str:
    from medsam_helpers.errors import MedsamError

    def too_long(*_: object) -> None:
        raise TimeoutError(f"took more than {PATIENCE_S} s")

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(PATIENCE_S)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            act()
    except MedsamError:
        return ""
    except OSError as error:  # the system's own words, of which the command line makes a line
        return "" if error.filename else f"{error} names no file"
    except BaseException as error:  # of any kind: that is what is looked for
        if isinstance(error, KeyboardInterrupt):
            raise
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:120]} ({Path(last.filename).name}:{last.lineno})"
    finally:
        signal.alarm(0)
    return ""


# --- settings ---

NONSENSE = ("-1", "nan", "inf", "-inf", "1e400", "9" * 25, "1.5", "", "x", "²", "\udc80", "[" * 3000, "../..", "None")


def try_settings(place: Path, rng: random.Random) -> tuple[int, Wrong]:
    """Values that mean nothing, on the command line and in experiment files: an own error in a line, no trace."""
    from medsam_helpers.errors import MedsamError
    from medsam_helpers.runs.experiments import read_experiment
    from medsam_helpers.runs.settings import RunConfig
    from medsam_helpers.training.recipes import Recipe

    tried, wrong = 0, Wrong()
    numeric = ("epochs", "batch", "lr", "jitter_1024", "patience", "clip_norm", "loss_size", "train_limit", "seed")
    for name in numeric:
        for value in NONSENSE:
            tried += 1
            try:
                config = RunConfig(**{name: value})
                endless = name in ("epochs", "batch", "jitter_1024", "loss_size") and float(value) > 1e6
                if not np.isfinite(float(value)) or float(value) < 0 or endless:
                    wrong.append(f"{name} {value[:30]!r} was taken: {config}")
            except MedsamError as error:
                if len(str(error)) > 1000:
                    wrong.append(f"{name} {value[:30]!r}: {len(str(error))} characters of message")
            except Exception as error:
                wrong.append(f"{name} {value[:30]!r}: {type(error).__name__} {str(error)[:100]}")
    values = (
        "1.5",
        "-1",
        '"x"',
        "[]",
        "true",
        "nan",
        "inf",
        "1" + "0" * 30,
        "{a = 1}",
        "[" * 400 + "]" * 400,
        '["zz"]',
    )
    fields = (*rng.sample(sorted(Recipe.model_fields), 8), "epochs", "folds", "seeds", "also_on", "trainable")
    for field in fields:
        for value in values:
            tried += 1
            path = place / "wrong.toml"
            path.write_text(f'{field} = {value}\n[[runs]]\nname = "a"\n[[runs]]\nname = "b"\n{field} = {value}\n')
            try:
                read_experiment("wrong", place)
            except MedsamError:
                pass
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                wrong.append(f"experiment, {field} = {value[:30]}: {type(error).__name__} {str(error)[:100]}")
    return tried, wrong


# --- kills ---


def results(folder: Path) -> dict[str, str]:
    """Digests of what a run leaves, without times."""
    names = ("decoder.safetensors", "metrics.csv", "seen_images.csv")
    found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    lines = (folder / "history.csv").read_text().splitlines()
    seconds = lines[0].split(",").index("seconds")
    return found | {"history": "".join(",".join(np.delete(line.split(","), seconds)) for line in lines)}


def kill_training(place: Path, number: int) -> tuple[int, Wrong]:
    """Three kills at random moments, on a cold cache, then to the end: weights, history and scores as undisturbed."""
    rng, wrong, output = random.Random(number), Wrong(), f"killed-{number}"
    kills = 0
    while kills < 3:
        process = start(place, finetune(output), f"cache-{number}")
        watch = threading.Timer(rng.uniform(1, 14), process.send_signal, [rng.choice([signal.SIGKILL, signal.SIGTERM])])
        watch.start()
        _, err = process.communicate()
        watch.cancel()
        kills += 1
        # -SIGINT: Python's own end where an interrupt went through code that was run from text.
        if process.returncode not in (0, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 130):
            wrong.append(f"training {number}: status {process.returncode}: {err[-300:]}")
    done = medsam(place, finetune(output), f"cache-{number}")
    if done.returncode:
        wrong.append(f"training {number}: cannot go on: {done.stderr[-300:]}")
    elif results(place / output) != results(place / "run"):
        wrong.append(f"training {number}: other results than undisturbed")
    left = [str(path.relative_to(place)) for path in (place / output).rglob(".*")]
    if left:
        wrong.append(f"training {number}: left behind {left[:3]}")
    for folder in (output, f"cache-{number}"):
        shutil.rmtree(place / folder, ignore_errors=True)
    return kills, wrong


def kill_export(place: Path, number: int) -> tuple[int, Wrong]:
    """Killed at a random moment, an export is not there, or whole; the same command then makes it."""
    rng, output = random.Random(1000 + number), f"export-{number}"
    arguments = ["export", "--checkpoint", "run", "--output", output]
    process = start(place, arguments, "cache")
    watch = threading.Timer(rng.uniform(3, 9), process.kill)
    watch.start()
    process.communicate()
    watch.cancel()
    if not (place / output).exists():
        done = medsam(place, arguments)
        if done.returncode:
            return 1, [f"export {number}: cannot be made again: {done.stderr[-300:]}"]
    left = [path.name for path in place.glob(f".{output}*")]
    loads = medsam(place, ["evaluate", "--data", "data", "--model", output, "--output", f"{output}-scores"])
    wrong = [f"export {number}: does not load: {loads.stderr[-300:]}"] if loads.returncode else []
    return 1, wrong + ([f"export {number}: left behind {left}"] if left else [])


def kill_sweep(place: Path, number: int) -> tuple[int, Wrong]:
    """Launcher or a worker killed in the middle: taken up again, the sweep has its trials, and nobody else works."""
    rng, folder, wrong = random.Random(2000 + number), place / f"sweep-{number}", Wrong()
    code = (
        "import sys; from medsam_helpers.mlops.sweeps import sweep; from medsam_helpers.mlops.trials import SweepPlan"
    )
    code += "; plan = SweepPlan('tiny', 'data', epochs=1, trials=4, precision='fp32', uri=sys.argv[2])"
    code += "; study = sweep(sys.argv[1], plan, 2, False)"
    code += "; print(sum(trial.state.name in ('COMPLETE', 'PRUNED') for trial in study.trials))"
    command = [sys.executable, "-c", code, str(folder), os.environ["MLFLOW_TRACKING_URI"]]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=place, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    watch = threading.Timer(rng.uniform(8, 25), process.kill)
    watch.start()
    process.wait()
    watch.cancel()
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    if done.returncode or int(done.stdout.split()[-1]) < 4:
        wrong.append(f"sweep {number}: {done.stdout[-100:]} {done.stderr[-300:]}")
    return 1, wrong


def try_kills(place: Path, rng: random.Random) -> tuple[int, Wrong]:
    """Kills of training, export and sweep, two at a time."""
    from medsam_helpers.mlops.server import Server

    jobs = [(kill_training, number) for number in range(16)] + [(kill_export, number) for number in range(6)]
    jobs += [(kill_sweep, number) for number in range(4)]
    with Server(place / "mlflow") as server, ThreadPoolExecutor(2) as pool:
        os.environ["MLFLOW_TRACKING_URI"] = server.uri
        found = list(pool.map(lambda job: job[0](place, job[1]), jobs))
    return sum(count for count, _ in found), [told for _, wrong in found for told in wrong]


# --- the relay ---


def try_requests(place: Path, rng: random.Random) -> tuple[int, Wrong]:
    """Hostile requests, every third time to a relay that was killed and started again: refused, and it goes on."""
    import requests

    from medsam_helpers.mlops.server import wait_until
    from medsam_helpers.mlops.webhooks import PATH, sign

    wrong, tried, secret = Wrong(), 0, "a secret"
    names = ("WEBHOOK_SECRET", "DISPATCH_TOKEN", "DISPATCH_REPOSITORY")
    # GitHub and MLflow are a port at which nobody answers.
    environment = os.environ | {f"MEDSAM_{name}": secret for name in names} | {"PYTHONPATH": str(ROOT)}
    environment |= {"GITHUB_API_URL": "http://127.0.0.1:9", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "medsam_helpers.mlops.webhooks", "--port", str(port)]
    log = place / "relay.log"

    def started() -> subprocess.Popen[bytes]:
        with log.open("ab") as file:
            process = subprocess.Popen(command, env=environment, cwd=place, stderr=file)
        if not wait_until(lambda: _answers(address)):
            wrong.append("the relay does not start")
        return process

    bodies = [b"", b"[", b"null", b"[" * 100_000, b"\xff\xfe", rng.randbytes(500), b"{}" * 400_000]
    relay = started()
    for number in range(120):
        if number % 12 == 11:
            relay.kill()
            relay.wait()
            relay = started()
        body = rng.choice(bodies)
        now = rng.choice([str(int(time.time())), str(int(time.time())), "9" * 400, "9" * 5000, "²", "", "-1"])
        delivery = rng.choice([f"d-{number}", "d-0", "x" * 200, ""])
        signed = rng.random() < 0.8
        signature = sign(secret, delivery, now, body) if signed else rng.choice(["v1,nonsense", "", "\xff"])
        told = {"Delivery-Id": delivery, "Timestamp": now, "Signature": signature}
        headers = {f"X-MLflow-{name}": value.encode("latin-1") for name, value in told.items()}
        tried += 1
        try:
            status = requests.post(address + PATH, data=body, headers=headers, timeout=60).status_code
        except requests.RequestException as error:
            status = type(error).__name__
        right = 202 if signed and len(now) == 10 else 401
        if status != right:
            wrong.append(f"request {number} ({body[:60]!r}, time {now[:20]!r}): {status}, not {right}")
    if not _answers(address):
        wrong.append("the relay does not answer any more")
    relay.kill()
    relay.wait()
    if "Traceback" in (told_of := log.read_text()) or secret in told_of:
        wrong.append(f"its log ends so: {told_of[-300:]}")
    return tried, wrong


def _answers(address: str) -> bool:
    import requests

    with contextlib.suppress(requests.RequestException):
        return requests.get(address, timeout=10).status_code == 404
    return False


PARTS = {"damage": try_damage, "settings": try_settings, "kills": try_kills, "requests": try_requests}


def main() -> None:
    """Try everything that was asked for; print what was tried and what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    counts: dict[str, int] = collections.Counter()
    wrong = Wrong()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.environ["MEDSAM_CACHE"] = str(place / "cache")
        undamaged(place)
        for name in args.only:
            counts[name], found = PARTS[name](place, random.Random(args.seed))
            print(f"{name}: {counts[name]} tried, {len(found)} wrong", *found, sep="\n  ", flush=True)
            wrong += found
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
