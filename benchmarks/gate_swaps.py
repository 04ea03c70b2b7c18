"""Swaps under load, and what a copy that trains costs those who ask.

    python benchmarks/gate_swaps.py --run RUN [--output runs/gate-swaps] [--swaps 1000]
        [--clients 4] [--seconds 30] [--feedback 2000]

RUN is a run of two classes with a test part (say of benchmarks/gate_story.py). CLIENTS ask `igla
gate serve --learn` without a pause. First for SECONDS with nothing else going on, and for as long
again while a copy trains on FEEDBACK made-up lessons: requests a second and p99 of both, in the
same run. Then two versions are promoted in turn, SWAPS times: every answer is to be 200, with the
probability of the version that it names. Prints all of it and writes OUTPUT/swaps.json.
"""

import argparse
import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from gating.load import Figures, Load, asking
from gating.server import Running, serving
from safetensors.numpy import load_file, save_file

from igla.gate.swapping import open_version
from igla.serve.keys import add_key
from igla.serve.tokens import windows_of

# Probabilities in float32, computed in other batches, differ by less.
SAME = 1e-4


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--run", type=Path, required=True)
    arguments.add_argument("--output", type=Path, default=Path("runs/gate-swaps"))
    arguments.add_argument("--swaps", type=int, default=1000)
    arguments.add_argument("--clients", type=int, default=4)
    arguments.add_argument("--seconds", type=float, default=30)
    arguments.add_argument("--feedback", type=int, default=2000)
    asked = arguments.parse_args()
    folder: Path = asked.output
    shutil.rmtree(folder / "served", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "keys.json").unlink(missing_ok=True)
    key = add_key(folder / "keys.json", "all", ("score", "feedback", "admin"), None)
    learning = {"count": 1_000_000, "minutes": 1e6, "fewest": 1, "drift": False, "epochs": 1000}
    config = {
        "precision": "float32",
        "gate": {"feedback_per_hour": None},
        "learner": {"learning": learning, "trust": {"per_hour": 1_000_000}},
    }
    with serving(asked.run, folder / "served", config, folder / "keys.json", key) as running:
        texts = texts_of(running)
        with asking(running.port, key, texts, asked.clients) as load:
            time.sleep(2)
            alone = measured(load, asked.seconds)
            give(running, asked.feedback)
            running.post("/v1/gate/learn", {})
            wait(running, "training")
            training = measured(load, asked.seconds)
            if running.status().get("state") != "training":
                raise SystemExit("The copy was trained before the time was over: more --feedback.")
        second = other_version(running)
        with asking(running.port, key, texts, asked.clients) as load:
            start = time.perf_counter()
            for number in range(asked.swaps):
                running.post("/v1/gate/promote", {"version": ("v0001", second)[1 - number % 2]})
            seconds = time.perf_counter() - start
        found = {
            "clients": asked.clients,
            "alone": asdict(alone),
            "while_a_copy_trains": asdict(training),
            "p99_times": training.p99_ms / alone.p99_ms,
            "throughput_share": training.a_second / alone.a_second,
            "swaps": asked.swaps,
            "seconds_a_swap": seconds / asked.swaps,
            "answers": len(load.answers),
            "faults": load.faults + wrong(running, load, texts, second),
        }
    (folder / "swaps.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, value in found.items():
        print(f"{name}: {value}")
    if found["faults"]:
        raise SystemExit(1)


def texts_of(running: Running) -> list[str]:
    """Some texts that the model knows and reads whole: a longer one is scored in windows."""
    table = pq.read_table(running.home.rows / "holdout.parquet")
    texts = [text for text in table["text"].to_pylist() if text.strip()]
    encoder = open_version(running.home, "v0001", "default", "float32").encoder
    windows = np.bincount(windows_of(encoder, texts, truncate=False).owner)
    return [text for text, count in zip(texts, windows, strict=True) if count == 1][:200]


def measured(load: Load, seconds: float) -> Figures:
    start = time.perf_counter()
    time.sleep(seconds)
    return load.between(start, start + seconds)


def give(running: Running, count: int) -> None:
    for number in range(count):
        text = f"lesson {number} of those that are made up for a copy to train on"
        outcome = ("override_allow", "override_block")[number % 2]
        running.post("/v1/gate/feedback", {"text": text, "outcome": outcome, "who": "anna"})


def wait(running: Running, state: str) -> None:
    while running.status().get("state") != state:
        time.sleep(0.1)


def other_version(running: Running) -> str:
    """A second version, which blocks more readily."""
    versions = running.home.versions
    first = versions.path("v0001")

    def write(folder: Path) -> None:
        for file in first.iterdir():
            if file.name not in ("manifest.json", "version.json"):
                shutil.copy(file, folder)
        weights = load_file(folder / "model.safetensors")
        weights["classifier.bias"] = weights["classifier.bias"] + np.float32([0.0, 1.0])
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    return versions.add(write, versions.about("v0001"))


def wrong(running: Running, load: Load, texts: list[str], second: str) -> list[str]:
    """What is wrong with answers: their status, or not what the version that they name says."""
    expected = {}
    for name in ("v0001", second):
        served = open_version(running.home, name, "default", "float32")
        expected[name] = 1 - served.classifier.probabilities(texts)[:, 1]
    faults = []
    for one in load.answers:
        if one.status != 200 or one.header != f"default/{one.version}":
            faults.append(f"{one.status} {one.header} {one.version}")
        elif abs(one.probability - expected[one.version][one.text]) > SAME:
            faults.append(f"{one.version} says {one.probability} of text {one.text}")
    seen = {one.version for one in load.answers}
    return faults if seen == set(expected) else [*faults, f"only {seen} have answered"]


if __name__ == "__main__":
    main()
