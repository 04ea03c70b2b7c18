"""Poisoned feedback against a gate, batch after batch: the third story of docs/gate.md.

    python benchmarks/gate_poison.py [--output runs/gate-poison] [--seed 1] [--batches 100]
        [--poison 100] [--honest 39] [KEY=VALUE]…

A small model is trained on tool calls among which there is no mail. Each batch is an hour of the
log: POISON decisions called wrong where they are right, and right where they are wrong, under one
key, and HONEST ones judged rightly by three people, mail among them. After each hour the learner
looks, in this process. Prints which copies took over and the PR-AUC of what serves on calls that
nobody has labelled, and writes OUTPUT/poison.json.
"""

import argparse
import csv
import json
import shutil
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from gating.tools import Call, at_first, generated

from igla.gate.attention import Attention
from igla.gate.beginning import begin, block_scores
from igla.gate.context import digest, text_of_tool
from igla.gate.judge import average_precision
from igla.gate.learner_settings import LearnerSettings
from igla.gate.log import Entry, GateLog, NewDecision, NewFeedback
from igla.gate.outcomes import judged
from igla.gate.process import Process
from igla.gate.round import open_learner
from igla.gate.versions import Versions
from igla.infer.classifier import Classifier
from igla.recipe import load_recipe
from igla.serve.decisions import Verdict
from igla.terminal import plain_console
from igla.train.run import train

PEOPLE = ("anna", "boris", "vera")
BLOCK = 1  # allow, block
RECIPE = (
    "model.size=tiny model.layers=1 model.hidden_size=64 model.intermediate_size=128 "
    "train.epochs=6 optim.learning_rate=2e-3 data.validation_share=0.25 data.test_share=0.4 "
    "text.max_length=64 train.precision=float32"
).split()
LEARNING = {"learning_rate": 2e-3, "epochs": 3, "fisher_rows": 64, "count": 100, "keep": 1000}
# A voice more than half again as loud as an honest one is turned down.
TRUST = {"per_hour": 20}


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--output", type=Path, default=Path("runs/gate-poison"))
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--batches", type=int, default=100)
    arguments.add_argument("--poison", type=int, default=100)
    arguments.add_argument("--honest", type=int, default=39)
    arguments.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    asked = arguments.parse_args()
    folder: Path = asked.output
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    calls = generated(asked.seed, 2500 + 1000 + asked.batches * (asked.poison + asked.honest))
    known, test, traffic = calls[:2500], calls[2500:3500], calls[3500:]
    run = trained(folder, known, [f"train.seed={asked.seed}", *asked.changes])
    settings = LearnerSettings.model_validate({"learning": LEARNING, "trust": TRUST})
    learner = open_learner(begin(folder / "gate", run, BLOCK), BLOCK, settings)
    hours = []
    with closing(GateLog(f"sqlite:///{folder.absolute()}/gate.db")) as log:
        work = Process(learner, Attention(log, learner.home), threading.Event())
        start = datetime.now(UTC) - timedelta(hours=asked.batches + 1)
        for number in range(asked.batches):
            size = asked.poison + asked.honest
            batch = traffic[number * size : (number + 1) * size]
            hour = start + timedelta(hours=number)
            log.write(said(batch, asked.poison, hour, learner.home.versions))
            work.look()
            hours.append(measured(learner.home.versions.serving().name, learner.home.folder, test))
            print(number + 1, hours[-1], work.status["last"]["reason"], flush=True)
    found = summary(learner, hours) | {"hours": hours}
    (folder / "poison.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name in ("swaps", "rejected", "worst_step", "first", "last", "left_out"):
        print(f"{name}: {found[name]}")


def trained(folder: Path, calls: list[Call], changes: list[str]) -> Path:
    """A run on the calls that are no mail."""
    rows = [
        (text_of_tool(**one.body()), "block" if at_first(one) else "allow")
        for one in calls
        if one.tool != "send_mail"
    ]
    with (folder / "calls.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    source = f"data.source={(folder / 'calls.csv').absolute()}"
    train(load_recipe(None, [source, *RECIPE, *changes]), folder / "run", plain_console(quiet=True))
    return folder / "run"


def said(batch: list[Call], poison: int, hour: datetime, versions: Versions) -> list[Entry]:
    """An hour's decisions of the version that serves, and feedback to them: the first so many the
    wrong way round under one key, the rest right."""
    serving = versions.serving().name
    texts = [text_of_tool(**call.body()) for call in batch]
    allowed = 1 - Classifier.load(versions.path(serving)).probabilities(texts)[:, BLOCK]
    made: list[Entry] = []
    for number, (call, text) in enumerate(zip(batch, texts, strict=True)):
        probability, at = float(allowed[number]), hour + timedelta(seconds=number)
        action: Verdict = "allow" if probability >= 0.5 else "block"
        decision = NewDecision(
            model="default", version=serving, action=action, probability=probability, text=text,
            context=digest(text), tool=call.tool, at=at,
        )  # fmt: skip
        feedback = NewFeedback(
            outcome=judged(action, at_first(call) == (number < poison)),
            decision=decision.id,
            who="" if number < poison else PEOPLE[number % 3],
            key="poisoner" if number < poison else "",
            at=at,
        )
        made += [decision, feedback]
    return made


def measured(name: str, folder: Path, test: list[Call]) -> dict[str, Any]:
    """PR-AUC of a version on all calls, and on the mail alone."""
    classifier = Classifier.load(folder / "versions" / name)
    kinds: dict[str, Callable[[Call], bool]] = {
        "all": lambda call: True,
        "mail": lambda call: call.tool == "send_mail",
    }
    found: dict[str, Any] = {"serving": name}
    for kind, wanted in kinds.items():
        calls = [call for call in test if wanted(call)]
        allowed = np.array([not at_first(call) for call in calls], dtype=np.int64)
        texts = [text_of_tool(**call.body()) for call in calls]
        scores = block_scores(classifier, texts, BLOCK)
        [area] = average_precision(allowed == 0, scores, np.ones((1, len(calls))))
        found[kind] = float(area)
    return found


def summary(learner: Any, hours: list[dict[str, Any]]) -> dict[str, Any]:
    versions = learner.home.versions
    about = [versions.about(name) for name in versions.names()[1:]]
    return {
        "swaps": sum(one.passed for one in about),
        "rejected": sum(not one.passed for one in about),
        "worst_step": min((b["all"] - a["all"] for a, b in pairwise(hours)), default=0.0),
        "first": hours[0],
        "last": hours[-1],
        "left_out": about[-1].figures["left_out"] if about else {},
    }


if __name__ == "__main__":
    main()
