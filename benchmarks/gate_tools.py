"""A gate of agents' tool calls whose policy changes: the second story of docs/gate.md.

    python benchmarks/gate_tools.py [--output runs/gate-tools] [--seed 1] [--calls 1500]
        [--train 2400] [--every 100] [--plot docs/gate-tools.svg] [KEY=VALUE]…

A model is trained on TRAIN calls labelled by the first policy and served by `igla gate serve
--learn`. Then CALLS calls are decided on; three people say of each whether it was right. After a
third of them the policy changes: production is frozen, and one partner's mail allowed. After EVERY
calls the client waits for the learner. Prints the share of decisions that were right, EVERY at a
time, and writes OUTPUT/tools.json and the plot (OUTPUT/tools.svg).
"""

import argparse
import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from gating.plot import plot_alignment
from gating.server import Running, serving
from gating.tools import Call, at_first, generated, later

from igla.gate.context import text_of_tool
from igla.recipe import load_recipe
from igla.terminal import plain_console
from igla.train.run import train

PEOPLE = ("anna", "boris", "vera")
RECIPE = (
    "model.size=tiny train.epochs=4 optim.learning_rate=1e-3 data.validation_share=0.2 "
    "data.test_share=0.4 text.max_length=64"
).split()
# The client waits for the learner, so it need not step back behind the server.
LEARNER = {
    "learning_rate": 5e-4, "epochs": 8, "batch_size": 16, "fewest": 32, "fisher_rows": 128,
    "niceness": 0,
}  # fmt: skip
RECOVERED = 0.95


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--output", type=Path, default=Path("runs/gate-tools"))
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--calls", type=int, default=1500)
    arguments.add_argument("--train", type=int, default=2400)
    arguments.add_argument("--every", type=int, default=100)
    arguments.add_argument("--plot", type=Path, help="file for the plot, an .svg")
    arguments.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    asked = arguments.parse_args()
    folder: Path = asked.output
    calls = generated(asked.seed, asked.train + asked.calls)
    change = asked.calls // 3
    run = trained(folder, calls[: asked.train], [f"train.seed={asked.seed}", *asked.changes])
    count = round(asked.every * 0.9)
    config = {
        # Halfway, so that each call is allowed or blocked and none left to a person.
        "gate": {"allow": 0.5, "block": 0.5},
        "learner": {"learning": LEARNER | {"count": count}, "trust": {"per_hour": 1_000_000}},
    }
    shutil.rmtree(folder / "served", ignore_errors=True)
    with serving(run, folder / "served", config) as running:
        right, versions = decided(running, calls[asked.train :], change, asked.every, count)
        history = [
            {"version": name} | vars(running.home.versions.about(name))
            for name in running.home.versions.names()
        ]
    shares = np.array(right).reshape(-1, asked.every).mean(axis=1)
    found: dict[str, Any] = {
        "change": change,
        "every": asked.every,
        "right": shares.tolist(),
        "serving": versions,
        "recovered_after": recovered(right[change:]),
        "versions": history,
    }
    (folder / "tools.json").write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    plot_alignment(asked.plot or folder / "tools.svg", shares, asked.every, change)
    for number, (share, version) in enumerate(zip(shares, versions, strict=True)):
        start = number * asked.every
        print(f"{start:>5} … {start + asked.every:<5} {share:6.1%} right; then {version} serves")
    print(f"back above {RECOVERED:.0%} after {found['recovered_after']} feedbacks")


def trained(folder: Path, calls: list[Call], changes: list[str]) -> Path:
    """A run on calls labelled by the first policy; one that is there already is taken as it is."""
    run = folder / "run"
    if not (run / "model").is_dir():
        shutil.rmtree(run, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        rows = [
            (text_of_tool(**one.body()), "block" if at_first(one) else "allow") for one in calls
        ]
        with (folder / "calls.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
        source = f"data.source={(folder / 'calls.csv').absolute()}"
        train(load_recipe(None, [source, *RECIPE, *changes]), run, plain_console(quiet=True))
    return run


def decided(
    running: Running, calls: list[Call], change: int, every: int, count: int
) -> tuple[list[bool], list[str]]:
    """Of each call whether it was decided rightly, and after `every` calls what serves."""
    right, serves = [], []
    for number, call in enumerate(calls, start=1):
        policy = at_first if number <= change else later
        blocked = policy(call)
        answer = running.post("/v1/gate/decide", call.body())
        right.append((answer["action"] == "block") == blocked)
        word = "block" if blocked else "allow"
        wrong = "wrongly_allowed" if blocked else "wrongly_blocked"
        outcome = f"confirmed_{word}" if right[-1] else wrong
        said = {"decision": answer["decision"], "outcome": outcome, "who": PEOPLE[number % 3]}
        running.post("/v1/gate/feedback", said)
        if number % every == 0:
            running.wait_for_the_learner(number, count)
            serves.append(running.home.versions.serving().name)
            print(number, np.mean(right[-every:]), serves[-1], flush=True)
    return right, serves


def recovered(right: list[bool], window: int = 100) -> int | None:
    """After how many decisions the last `window` of them were right often enough; None: never."""
    for end in range(window, len(right) + 1):
        if np.mean(right[end - window : end]) >= RECOVERED:
            return end
    return None


if __name__ == "__main__":
    main()
