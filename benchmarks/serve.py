"""igla's server and others on the same model: latency, throughput, start.

    python benchmarks/serve.py --model RUN --data comments.csv [--pairs 3] [--seconds 8]

RUN is a run or folder of a BERT classifier of two classes (without n-grams, which transformers
does not know). Each server runs alone, in turn, in a process of its own, the client in another:
one comment of 175 letters at a time with pauses (low load), then 32 connections that ask without
pause for comments of the file (saturation). Prints a table and writes it with all figures to
OUTPUT/serve.md and .json.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from minilm.tables import median, spread
from serving.processes import FOLDER, asking, found_by, igla_serve, running, write_bodies

from igla.infer.classifier import model_folder
from igla.train.environment import environment

IGLA = "igla serve"
OTHER = [sys.executable, str(FOLDER / "server.py")]
SERVERS = {
    IGLA: igla_serve("{folder}"),
    "igla serve --precision int8": igla_serve("{folder}", "--precision", "int8"),
    "FastAPI + transformers' pipeline": [*OTHER, "pipeline", "{folder}", "{port}"],
    "ONNX Runtime INT8, igla's web layer": [*OTHER, "int8", "{folder}", "{port}"],
    "igla's web layer alone": [*OTHER, "nothing", "{folder}", "{port}"],
}


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--model", type=Path, required=True)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--pairs", type=int, default=3, help="how often each server runs")
    arguments.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    arguments.add_argument("--output", type=Path, default=Path("runs/serve"))
    asked = arguments.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in SERVERS}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        shutil.copytree(model_folder(asked.model), folder)
        single, many = write_bodies(asked.data, Path(scratch))
        for pair in range(asked.pairs):
            first = pair % len(SERVERS)
            for name in [*SERVERS][first:] + [*SERVERS][:first]:
                command = [word.replace("{folder}", str(folder)) for word in SERVERS[name]]
                one = measure(command, single, many, asked.seconds)
                found[name].append(one)
                shown = ", ".join(f"{key} {value:.4g}" for key, value in one.items())
                print(f"pair {pair + 1}: {name}: {shown}", flush=True)
    table = lines(found)
    print("\n".join(["", *table]))
    content = json.dumps({"machine": environment(), "servers": found}, indent=1)
    (asked.output / "serve.json").write_text(content + "\n", encoding="utf-8")
    (asked.output / "serve.md").write_text("\n".join(table) + "\n", encoding="utf-8")


def measure(command: list[str], single: Path, many: Path, seconds: float) -> dict[str, float]:
    """Of one server: seconds to start, milliseconds at low load, requests a second at most."""
    with running(command) as server:
        ask(server.port, many, connections=8, seconds=2.0)  # warm
        low_ms = ask(server.port, single, connections=1, seconds=seconds, pause=0.02)
        high_ms = ask(server.port, many, connections=32, seconds=seconds)
    return {
        "start": server.start,
        "p50": float(np.percentile(low_ms, 50)),
        "p99": float(np.percentile(low_ms, 99)),
        "rate": len(high_ms) / seconds,
        "p99_full": float(np.percentile(high_ms, 99)),
    }


def ask(port: int, bodies: Path, **job: Any) -> np.ndarray:
    """Milliseconds of each answer; every one has to be 200."""
    milliseconds, statuses = found_by(asking(port, bodies, **job))
    if set(statuses) != {200}:
        raise SystemExit(f"Answers other than 200: {set(statuses)}")
    return milliseconds


def lines(found: dict[str, list[dict[str, float]]]) -> list[str]:
    """The result as a Markdown table."""
    table = [
        "| server | ready after | p50 | p99 | requests/s, 32 at a time | p99 then | igla is |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, each in found.items():
        middle = {key: median([one[key] for one in each]) for key in each[0]}
        pairs = zip(found[IGLA], each, strict=True)
        ratio = spread([ours["rate"] / one["rate"] for ours, one in pairs])
        table.append(
            f"| {name} | {middle['start']:.1f} s | {middle['p50']:.1f} ms | {middle['p99']:.1f} ms "
            f"| {middle['rate']:,.0f} | {middle['p99_full']:.0f} ms "
            f"| {ratio['median']:.1f} × [{ratio['least']:.1f}, {ratio['most']:.1f}] |"
        )
    return table


if __name__ == "__main__":
    main()
