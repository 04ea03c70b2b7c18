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
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from minilm.tables import median, spread

from igla.data.dataset import load_dataset
from igla.infer.classifier import model_folder
from igla.recipe import load_recipe
from igla.train.environment import environment

IGLA = "igla serve"
SERVERS = {
    IGLA: None,
    "FastAPI + transformers' pipeline": "pipeline",
    "ONNX Runtime INT8, igla's web layer": "int8",
    "igla's web layer alone": "nothing",
}
FOLDER = Path(__file__).parent / "serving"


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
        single, many = bodies_of(asked.data, Path(scratch))
        for pair in range(asked.pairs):
            for name in [*SERVERS][pair % 4 :] + [*SERVERS][: pair % 4]:
                one = measure(SERVERS[name], folder, single, many, asked.seconds)
                found[name].append(one)
                shown = ", ".join(f"{key} {value:.4g}" for key, value in one.items())
                print(f"pair {pair + 1}: {name}: {shown}", flush=True)
    table = lines(found)
    print("\n".join(["", *table]))
    content = json.dumps({"machine": environment(), "servers": found}, indent=1)
    (asked.output / "serve.json").write_text(content + "\n", encoding="utf-8")
    (asked.output / "serve.md").write_text("\n".join(table) + "\n", encoding="utf-8")


def bodies_of(data: Path, scratch: Path) -> tuple[Path, Path]:
    """Files of request bodies: of one comment of 175 letters, and of a thousand as they come."""
    recipe = load_recipe(None, [f"data.source={data.absolute()}"])
    dataset = load_dataset(recipe.data, 1)
    texts = dataset.texts(np.arange(min(1000, len(dataset.parts))))
    long = max(texts, key=len)
    nearest = next((text for text in texts if len(text) == 175), long[:175])
    single, many = scratch / "single.json", scratch / "many.json"
    for path, chosen in ((single, [nearest]), (many, texts)):
        bodies = [json.dumps({"inputs": text}, ensure_ascii=False) for text in chosen]
        path.write_text(json.dumps(bodies), encoding="utf-8")
    return single, many


def measure(
    kind: str | None, folder: Path, single: Path, many: Path, seconds: float
) -> dict[str, float]:
    """Of one server: seconds to start, milliseconds at low load, requests a second at most."""
    with running(kind, folder) as (port, start):
        ask(port, many, 8, 2.0, 0.0)  # warm
        low = ask(port, single, 1, seconds, 0.02)
        high = ask(port, many, 32, seconds, 0.0)
    low_ms = np.array(low["seconds"]) * 1000
    high_ms = np.array(high["seconds"]) * 1000
    return {
        "start": start,
        "p50": float(np.percentile(low_ms, 50)),
        "p99": float(np.percentile(low_ms, 99)),
        "rate": len(high_ms) / seconds,
        "p99_full": float(np.percentile(high_ms, 99)),
    }


@contextmanager
def running(kind: str | None, folder: Path) -> Any:
    """A server's port, and the seconds until it was ready."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [sys.executable, str(FOLDER / "server.py"), str(kind), str(folder), str(port)]
    if kind is None:
        command = [sys.executable, "-m", "igla", "serve", str(folder), "--port", str(port)]
    start = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while True:
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(command)} has ended by itself.")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                    break
            except OSError:
                time.sleep(0.02)
        yield port, time.perf_counter() - start
    finally:
        process.terminate()
        process.wait()


def ask(port: int, bodies: Path, connections: int, seconds: float, pause: float) -> dict[str, Any]:
    """What the client's process has found; every answer has to be 200."""
    job = {"port": port, "path": "/predict", "bodies": str(bodies), "connections": connections}
    job |= {"seconds": seconds, "pause": pause}
    command = [sys.executable, str(FOLDER / "load.py"), json.dumps(job)]
    found: dict[str, Any] = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
    )
    if set(found["statuses"]) != {200}:
        raise SystemExit(f"Answers other than 200: {set(found['statuses'])}")
    return found


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
