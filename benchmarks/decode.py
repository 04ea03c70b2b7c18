"""Generation, igla's engines beside others on the same weights: tokens a second, greedy.

    python benchmarks/decode.py [--model FOLDER] [--rounds 5] [--tokens 128]

Without --model a decoder of 30 million weights with Llama's shape is made, at random: speed does
not hang on what weights say, and quality is measured elsewhere. Each contestant runs in a process
of its own, one after another, and all over again from the next one on; of each the fastest run
counts, since other processes can only make one slower. Prompt: 16 tokens. Every contestant has to
write the same tokens as transformers, but those whose weights are rounded. A peer that is not
installed is left out and named. Prints tables and writes all figures to OUTPUT/decode.json and .md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from igla.train.environment import environment

TRANSFORMERS, RUNTIME, IGLA = "transformers generate", "ONNX Runtime", "igla float32"
CONTESTANTS = {
    IGLA: "igla:float32",
    "igla bf16": "igla:bf16",
    "igla int8": "igla:int8",
    "igla int4": "igla:int4",
    "igla onnx engine": "igla-onnx:float32",
    "igla llamacpp engine": "igla-llamacpp:float32",
    TRANSFORMERS: "transformers:float32",
    "transformers generate bf16": "transformers:bf16",
    RUNTIME: "onnxruntime:float32",
    "ONNX Runtime GenAI": "genai:float32",
    "CTranslate2": "ctranslate2:float32",
    "CTranslate2 int8": "ctranslate2:int8",
    "llama.cpp": "llamacpp:float32",
    "llama.cpp Q8_0": "llamacpp:int8",
    "llama.cpp Q4_0": "llamacpp:int4",
}
# The format that a contestant reads, and what it imports besides igla and transformers.
NEEDS = {
    "ctranslate2": ("", "ctranslate2"),
    "onnxruntime": ("onnx", "onnxscript", "onnxruntime"),
    "igla-onnx": ("onnx", "onnxscript", "onnxruntime"),
    "genai": ("onnx", "onnxscript", "onnxruntime_genai"),
    "igla-llamacpp": ("gguf", "gguf", "llama_cpp"),
    "llamacpp": ("gguf", "gguf", "llama_cpp"),
}
EXACT = "float32"
WORKER = Path(__file__).parent / "decoding" / "worker.py"


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--model", type=Path, help="folder of a decoder")
    arguments.add_argument("--rounds", type=int, default=5, help="how often each contestant runs")
    arguments.add_argument("--tokens", type=int, default=128, help="that are written in a run")
    arguments.add_argument("--requests", type=int, default=16, help="of continuous batching")
    arguments.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    arguments.add_argument("--only", nargs="+", choices=[*CONTESTANTS], help="contestants to run")
    arguments.add_argument("--shape", choices=["30m", "tiny"], default="30m")
    arguments.add_argument("--output", type=Path, default=Path("runs/decode"))
    asked = arguments.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.model or Path(scratch) / "model"
        refused = work(["prepare", str(folder), asked.shape, str(scratch)])
        found, left_out = measure(folder, Path(scratch), asked, refused)
    table = lines(found, left_out, asked.requests)
    print("\n".join(["", *table]))
    content = {"machine": environment(), "runs": found, "left_out": left_out}
    (asked.output / "decode.json").write_text(json.dumps(content, indent=1) + "\n")
    (asked.output / "decode.md").write_text("\n".join(table) + "\n")


def measure(
    folder: Path, scratch: Path, asked: argparse.Namespace, refused: dict[str, str]
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """The runs of each contestant, and why others have none.

    refused  why the model is not written in a format
    """
    left_out = {}
    for name, contestant in CONTESTANTS.items():
        form, *modules = NEEDS.get(contestant.split(":")[0], ("",))
        if lacking := [module for module in modules if find_spec(module) is None]:
            left_out[name] = f"{' and '.join(lacking)} not installed"
        elif form in refused:
            left_out[name] = refused[form].rstrip(".")
    chosen = asked.only or [*CONTESTANTS]
    names = [name for name in CONTESTANTS if name in chosen and name not in left_out]
    if TRANSFORMERS not in names:
        raise SystemExit(f"{TRANSFORMERS} has to be among them: the others are held against it")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for turn in range(asked.rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            settings = [
                str(folder),
                str(scratch),
                str(asked.tokens),
                str(asked.requests),
                str(asked.seconds),
            ]
            one = work([CONTESTANTS[name], *settings])
            found[name].append(one)
            print(f"round {turn + 1}: {name}: {one['rate']:.1f} tokens/s", flush=True)
    expected = found[TRANSFORMERS][0]["written"]
    for name, runs in found.items():
        if any(len(run["written"]) != asked.tokens for run in runs):
            raise SystemExit(
                f"{name} writes fewer tokens than it is asked for: nothing is compared"
            )
        if CONTESTANTS[name].endswith(EXACT) and any(run["written"] != expected for run in runs):
            raise SystemExit(f"{name} writes other tokens than transformers: nothing is compared")
    return found, left_out


def work(words: list[str]) -> dict[str, Any]:
    """What a worker says in its last line."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(os.cpu_count())
    environ = os.environ | {"OMP_NUM_THREADS": threads}
    done = subprocess.run(
        [sys.executable, str(WORKER), *words], capture_output=True, text=True, env=environ
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr.strip()[-2000:]}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def lines(
    found: dict[str, list[dict[str, Any]]], left_out: dict[str, str], requests: int
) -> list[str]:
    best = {name: max(run["rate"] for run in runs) for name, runs in found.items()}
    table = ["| | tokens/s | × transformers | × ONNX Runtime |", "|---|---|---|---|"]
    for name, rate in best.items():
        of_runtime = f"{rate / best[RUNTIME]:.2f}" if RUNTIME in best else "—"
        table.append(f"| {name} | {rate:.1f} | {rate / best[TRANSFORMERS]:.2f} | {of_runtime} |")
    table += ["", f"| {requests} requests | sequential | together | × |", "|---|---|---|---|"]
    for name, runs in found.items():
        if runs[0]["together"] is None:
            continue
        together = max(run["together"] for run in runs)
        table.append(
            f"| {name} | {best[name]:.1f} | {together:.1f} | {together / best[name]:.2f} |"
        )
    table += ["", *(f"Left out: {name}: {why}." for name, why in left_out.items())]
    return table


if __name__ == "__main__":
    main()
