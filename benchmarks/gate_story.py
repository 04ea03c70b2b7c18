"""A moderated forum whose corrections are learned from: the story of docs/gate.md.

    python benchmarks/gate_story.py --data toxic_ru.csv [--output runs/gate-story] [--seed 1]
        [--rows N] [--stream N] [--count 600] [--plot docs/gate-story.svg] [KEY=VALUE]…

A tenth and a half of the rows are the fixed test part, which nothing else sees; half of the others
are trained on (by the recipe, with its own validation and test parts), and served by `igla gate
serve --learn`. The rest is traffic: each text is scored by Perspective's comments:analyze, and its
true label comes back by comments:suggestscore, from three moderators. From the middle of the stream
on, and in half of the test part, the words are spelt as those who evade filters spell them. After
every COUNT texts the client waits for the learner, so that what comes of it does not hang on the
machine's speed. At the end the same recipe is trained anew on everything, the stream included.
Prints what happened, and writes OUTPUT/story.json and the plot (OUTPUT/story.svg).
"""

import argparse
import csv
import json
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from gating.plot import plot_story
from gating.server import Running, serving

from igla.data.dataset import load_dataset
from igla.data.selection import UNUSED
from igla.gate.beginning import block_scores
from igla.gate.judge import average_precision
from igla.infer.classifier import Classifier
from igla.recipe import load_recipe
from igla.terminal import plain_console
from igla.text.evasion import evade
from igla.train.run import train

MODERATORS = ("anna", "boris", "vera")
TEST_SHARE, EVASIVE, CLIENTS = 0.15, 0.5, 8
RECIPE = (
    "model.size=tiny train.epochs=8 train.patience=2 data.validation_share=0.15 "
    "data.test_share=0.35"
).split()
# The client waits for the learner, so it may have the machine meanwhile.
LEARNER = {"learning_rate": 2e-4, "epochs": 3, "niceness": 0, "threads": os.cpu_count() or 1}


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--output", type=Path, default=Path("runs/gate-story"))
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--rows", type=int, help="at most so many in all")
    arguments.add_argument("--stream", type=int, help="at most so many texts of traffic")
    arguments.add_argument("--count", type=int, default=600, help="texts between two rounds")
    arguments.add_argument("--plot", type=Path, help="file for the plot, an .svg")
    arguments.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    asked = arguments.parse_args()
    folder: Path = asked.output
    folder.mkdir(parents=True, exist_ok=True)
    texts, toxic = read(asked.data, asked.seed, asked.rows)
    test, trained, stream = divided(texts, toxic, asked.seed, asked.stream)
    write(folder / "half.csv", *trained)
    changes = [*RECIPE, f"train.seed={asked.seed}", *asked.changes]
    clock = Clock()
    run = trained_run(folder / "run", folder / "half.csv", changes)
    clock.note("first training")
    learning = LEARNER | {"count": round(asked.count * 0.9), "fewest": 32}
    gate = {"feedback_per_hour": None}  # three moderators, of whom all is learned
    config = {"gate": gate, "learner": {"learning": learning, "trust": {"per_hour": 1_000_000}}}
    shutil.rmtree(folder / "served", ignore_errors=True)
    with serving(run, folder / "served", config) as running:
        kept = running.home.versions
        area = cache(lambda name: pr_auc(kept.path(name), test))
        points = streamed(running, stream, area, asked.count, learning["count"])
        versions = [
            {"version": name, "pr_auc": area(name)} | vars(kept.about(name))
            for name in kept.names()
        ]
    clock.note("stream and learning")
    write(folder / "everything.csv", [*trained[0], *stream[0]], [*trained[1], *stream[1]])
    # As many rows to learn from as there are, and the same rest to validate on.
    again = [*changes, "data.test_share=0.01", "data.validation_share=0.1"]
    whole = trained_run(folder / "everything", folder / "everything.csv", again)
    scratch = pr_auc(whole / "model", test)
    clock.note("retraining")
    found = summary(points, versions, scratch) | {"seconds": clock.seconds}
    found |= {"points": points, "versions": versions}
    (folder / "story.json").write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    plot_story(asked.plot or folder / "story.svg", points, scratch, len(stream[0]) // 2)
    for line in told(found):
        print(line)


class Clock:
    """How long each part has taken, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, int] = {}
        self._last = time.monotonic()

    def note(self, part: str) -> None:
        now = time.monotonic()
        self.seconds[part] = round(now - self._last)
        self._last = now


def read(data: Path, seed: int, most: int | None) -> tuple[list[str], list[int]]:
    """The rows that can be used, shuffled: texts, and 1 for what is to be blocked."""
    recipe = load_recipe(None, [f"data.source={data.absolute()}"])
    dataset = load_dataset(recipe.data, seed)
    rows = np.flatnonzero(dataset.parts != UNUSED)
    texts = dataset.texts(rows)
    order = np.random.default_rng(seed).permutation(len(rows))[:most]
    return [texts[row] for row in order], dataset.labels.values[rows][order].tolist()


def divided(
    texts: list[str], toxic: list[int], seed: int, traffic: int | None
) -> list[tuple[list[str], list[int]]]:
    """The test part, what is trained on, and the stream, spelt as they will be seen."""
    draw, cut = np.random.default_rng(seed), round(TEST_SHARE * len(texts))
    middle = cut + (len(texts) - cut) // 2
    end = len(texts) if traffic is None else min(len(texts), middle + traffic)
    evasive = {*range(cut // 2, cut), *range((middle + end) // 2, end)}
    seen = [
        evade(text, draw, EVASIVE) if row in evasive else text for row, text in enumerate(texts)
    ]
    parts = (slice(cut), slice(cut, middle), slice(middle, end))
    return [(seen[part], toxic[part]) for part in parts]


def write(file: Path, texts: list[str], toxic: list[int]) -> None:
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows([("comment", "toxic"), *zip(texts, toxic, strict=True)])


def trained_run(folder: Path, data: Path, changes: list[str]) -> Path:
    """A run on these rows; one that is there already is taken as it is."""
    if not (folder / "model").is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        recipe = load_recipe(None, [f"data.source={data.absolute()}", *changes])
        train(recipe, folder, plain_console(quiet=True))
    return folder


def pr_auc(model: Path, test: tuple[list[str], list[int]]) -> dict[str, float]:
    """PR-AUC of a model folder on the test part, and on its two halves."""
    texts, toxic = test
    blocked = np.array(toxic) == 1
    scores = block_scores(Classifier.load(model), texts, 1)
    half = len(texts) // 2
    parts = {"all": slice(None), "plain": slice(half), "evasive": slice(half, None)}
    return {
        name: float(average_precision(blocked[p], scores[p], np.ones((1, len(scores[p]))))[0])
        for name, p in parts.items()
    }


def streamed(
    running: Running,
    stream: tuple[list[str], list[int]],
    area: Callable[[str], dict[str, float]],
    every: int,
    count: int,
) -> list[dict[str, Any]]:
    """After so many texts: the version that serves, and its PR-AUC.

    area   of a version, by its name
    count  new feedbacks with which a round begins
    """
    points = [_point(running, 0, area)]
    rows = [*enumerate(zip(*stream, strict=True), start=1)]
    with ThreadPoolExecutor(CLIENTS) as clients:
        for start in range(0, len(rows), every):
            batch = rows[start : start + every]
            list(clients.map(lambda row: _moderated(running, *row), batch))
            running.wait_for_the_learner(start + len(batch), count)
            points.append(_point(running, start + len(batch), area))
    return points


def _moderated(running: Running, number: int, row: tuple[str, int]) -> None:
    """One comment: scored, and then told what a moderator says of it."""
    text, toxic = row
    comment = {"comment": {"text": text}, "sessionId": MODERATORS[number % 3]}
    asked = comment | {"requestedAttributes": {"TOXICITY": {}}}
    running.post("/v1alpha1/comments:analyze", asked)
    score = {"TOXICITY": {"summaryScore": {"value": float(toxic)}}}
    token = {"attributeScores": score, "clientToken": f"{number}"}
    running.post("/v1alpha1/comments:suggestscore", comment | token)


def _point(
    running: Running, number: int, area: Callable[[str], dict[str, float]]
) -> dict[str, Any]:
    serving = running.home.versions.serving().name
    found = {"feedback": number, "serving": serving, "pr_auc": area(serving)}
    print(found, flush=True)
    return found


def summary(
    points: list[dict[str, Any]], versions: list[dict[str, Any]], scratch: dict[str, float]
) -> dict[str, Any]:
    first, last = points[0]["pr_auc"], points[-1]["pr_auc"]
    served = [one for one in versions if one["passed"]]
    areas = [one["pr_auc"]["all"] for one in served]
    steps = [after - before for before, after in pairwise(areas)]
    return {
        "swaps": len(served) - 1,
        "rejected": len(versions) - len(served),
        "worst_step": min(steps, default=0.0),
        "first": first,
        "last": last,
        "retrained": scratch,
        "short_of_retraining": scratch["all"] - last["all"],
    }


def told(found: dict[str, Any]) -> list[str]:
    lines = []
    for name in ("all", "plain", "evasive"):
        figures = (found[which][name] for which in ("first", "last", "retrained"))
        lines.append(f"PR-AUC, {name}: {' -> '.join(f'{one:.3f}' for one in figures)} (retrained)")
    lines.append(
        f"{found['swaps']} swaps, {found['rejected']} copies rejected; the worst swap changed "
        f"PR-AUC on the test part by {100 * found['worst_step']:+.1f} points"
    )
    minutes = ", ".join(f"{part} {one / 60:.1f}" for part, one in found["seconds"].items())
    return [*lines, f"minutes: {minutes}"]


if __name__ == "__main__":
    main()
