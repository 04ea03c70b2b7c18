"""Kill -9 a training at random moments, resume it each time, and compare its final weights.

    python benchmarks/kill_and_resume.py [--kills 200] [--seed 0]

A small training that saves after every step, in accumulated steps, is run once uninterrupted. Then
the same training is begun again and again and killed at random moments, before its first step and
at its very end among them. Every resume must succeed, and every run that gets to its end must have
the uninterrupted run's weights, bit for bit. Exit status 1 otherwise.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from igla.ops.native import native
from igla.recipe import Recipe, load_recipe
from igla.terminal import plain_console
from igla.train.command import new_run, resume_run
from igla.train.run import RECIPE, Extras

WORDS = "дом лес река поле гора море небо снег дождь ветер хлеб соль вода огонь".split()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--kills", type=int, default=200)
    arguments.add_argument("--seed", type=int, default=0)
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="igla-kill-") as made:
        os.environ["IGLA_CACHE"] = f"{made}/cache"
        native()  # compiled here, it does not count as a run's time
        result = kill_and_resume(Path(made), asked.kills, random.Random(asked.seed))
    print(json.dumps(result, indent=1))
    faults = ("failed", "different", "left_behind")
    sys.exit(1 if any(result[fault] for fault in faults) else 0)


def kill_and_resume(folder: Path, kills: int, chance: random.Random) -> dict[str, int]:
    """Counts of what happened in as many killings."""
    recipe = small_recipe(folder)
    started = time.monotonic()
    assert wait(begin(recipe, folder / "whole")) == 0, "the uninterrupted run failed"
    duration = time.monotonic() - started
    expected = weights(folder / "whole")
    counts = dict(killed=0, resumed=0, finished=0, failed=0, different=0, left_behind=0)
    while counts["killed"] < kills:
        run = folder / f"run-{counts['finished']}"
        if (run / RECIPE).exists():
            counts["resumed"] += 1
        child = begin(recipe, run)
        status = kill_after(child, chance.uniform(0, duration))
        if status == -signal.SIGKILL:
            counts["killed"] += 1
        elif status == 0:
            counts["finished"] += 1
            counts["different"] += weights(run) != expected
            counts["left_behind"] += len(set(run.glob(".*")) - {run / ".lock"})
        else:
            counts["failed"] += 1
            break
    return counts


def small_recipe(folder: Path) -> Recipe:
    """Six accumulated steps of a one-layer model, saved after each."""
    chance = random.Random(0)
    rows = ["text,label"]
    for index in range(96):
        words = [chance.choice(WORDS[index % 2 :: 2]) for _ in range(chance.randint(3, 9))]
        rows.append(f"{' '.join(words)} {index},{index % 2}")
    data = folder / "rows.csv"
    data.write_text("\n".join(rows) + "\n", encoding="utf-8")
    settings = (
        "model.size=tiny model.layers=1 model.hidden_size=32 model.intermediate_size=64 "
        "train.batch_size=16 train.micro_batch_size=6 train.steps=6 train.save_steps=1 "
        "train.evaluations_per_epoch=2"
    )
    return load_recipe(None, [f"data.source={data}", *settings.split()])


def begin(recipe: Recipe, run: Path) -> int:
    """Start or resume a run in a process of its own, and give its number."""
    child = os.fork()
    if child:
        return child
    try:
        # A process that was killed before it wrote its recipe has begun nothing.
        sys.stdout = sys.stderr = (run.parent / f"{run.name}.out").open("a", encoding="utf-8")
        if (run / RECIPE).exists():
            resume_run(str(run), Extras())
        else:
            new_run(recipe, run, Extras())
        os._exit(0)
    except BaseException as error:
        plain_console().print(f"{type(error).__name__}: {error}")
        sys.stdout.flush()
        os._exit(1)


def kill_after(child: int, seconds: float) -> int:
    """Exit status of a child that is killed after so many seconds unless it has ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    return wait(child)


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def weights(run: Path) -> str:
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
