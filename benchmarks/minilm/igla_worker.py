"""One `igla train`, and what its log says of its speed.

Job: recipe (YAML file), output (folder), warmup (steps that are not counted).
"""

import json
import time
from pathlib import Path

from igla.recipe import load_recipe
from igla.terminal import plain_console
from igla.train.log import read_records
from igla.train.run import train
from minilm.workers import Answer, Job, answer


def work(job: Job) -> Answer:
    started = time.time()
    folder = Path(job["output"])
    train(load_recipe(Path(job["recipe"])), folder, plain_console())
    records = read_records(folder)
    steps = [record for record in records if record["kind"] == "step"]
    before, counted = steps[: job["warmup"]], steps[job["warmup"] :]
    begun = before[-1]["ended"] if before else counted[0]["ended"] - counted[0]["seconds"]
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return {
        # From the end of one step to the end of another, as Trainer's clock runs.
        "seconds": counted[-1]["ended"] - begun,
        "rows": sum(step["sequences"] for step in counted),
        "tokens": sum(step["tokens"] for step in counted),
        "waited": sum(step["waited"] for step in counted),
        "peak_memory": metrics["training"]["peak_memory"],
        "losses": [step["loss"] for step in steps],
        "validation_loss": [r["validation_loss"] for r in records if r["kind"] == "evaluation"][-1],
        "whole_seconds": time.time() - started,
    }


if __name__ == "__main__":
    answer(work)
