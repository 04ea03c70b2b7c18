"""Supervised fine-tuning four ways: all weights, LoRA, DoRA and QLoRA, on answers that can be
checked, or on a file of conversations by their loss.

    python benchmarks/sft.py [--base runs/base/model] [--train 10000] [--test 240] [--seeds 3]
        [--methods full lora dora qlora] [--data talks.jsonl] [--output runs/sft] [KEY=VALUE]…

Without --base a small decoder is first pretrained on texts of the same six kinds of tasks (none of
them held out), by PRETRAINING below. Each run is a process of its own, so that its peak memory is
its own. Answers to held-out prompts are the likeliest tokens, one after another, and are right to
the letter or wrong. Prints means over the seeds and writes OUTPUT/sft.md and .json; runs that are
there already are kept. KEY=VALUE holds for all runs.
"""

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from igla.adapt.opened import open_decoder
from igla.data.tasks import KINDS, Example, examples, read_tasks, write_tasks
from igla.infer.decoding import Autoregressive
from igla.infer.sampling import Sampling
from igla.infer.scheduler import Scheduler
from igla.infer.torch_backend import TorchBackend
from igla.model.folder import read_json
from igla.text.template import ChatTemplate
from igla.text.tokenizer import load_tokenizer

METHODS = {
    "full": ["optim.learning_rate=1e-3"],
    "lora": ["adapt.method=lora", "optim.learning_rate=3e-3"],
    "dora": ["adapt.method=dora", "optim.learning_rate=3e-3"],
    "qlora": ["adapt.method=qlora", "optim.learning_rate=3e-3"],
}
PRETRAINING = (
    "objective.task=causal_lm text.vocab_size=600 model.hidden_size=128 model.layers=4 "
    "model.heads=4 model.kv_heads=2 model.intermediate_size=384 text.max_length=128 "
    "train.batch_tokens=4096 optim.learning_rate=3e-3 corpus.letters_share=0 corpus.similar=keep"
).split()
TUNING = "objective.task=sft text.max_length=128 train.batch_tokens=2048 train.epochs=3".split()
_LONGEST = 48


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--base", type=Path)
    arguments.add_argument("--texts", type=int, default=100_000, help="to pretrain a base on")
    arguments.add_argument("--train", type=int, default=10_000)
    arguments.add_argument("--test", type=int, default=240)
    arguments.add_argument("--data", type=Path, help="conversations, in place of made-up tasks")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--methods", nargs="*", choices=[*METHODS], default=[*METHODS])
    arguments.add_argument("--output", type=Path, default=Path("runs/sft"))
    arguments.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    asked = arguments.parse_args()
    output = asked.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    base = asked.base.absolute() if asked.base else pretrained(output, asked.texts)
    tasks = output / f"tasks-{asked.train}-{asked.test}"
    if asked.data is None and not tasks.exists():
        write_tasks(tasks, 1, asked.train, asked.test)
    source = asked.data.absolute() if asked.data else tasks / "train.jsonl"
    tests = [] if asked.data else list(read_tasks(tasks / "test.jsonl"))
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for seed in range(1, asked.seeds + 1):
        for method in asked.methods:
            folder = output / f"{source.stem}-{method}-{seed}"
            own = [f"model.base={base}", f"data.source={source}", f"train.seed={seed}"]
            train(folder, [*TUNING, *own, *METHODS[method], *asked.changes])
            found[method].append(measured(folder, tests))
    table = lines(found, exact=bool(tests))
    print("\n".join(["", *table]))
    (output / "sft.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (output / "sft.md").write_text("\n".join(table) + "\n", encoding="utf-8")


def pretrained(output: Path, count: int) -> Path:
    """A small decoder that has read tasks and their answers as plain texts."""
    texts = output / "texts.txt"
    if not texts.exists():
        # Another seed than that of the examples to tune on; nothing that is held out.
        plain = [f"{one.prompt}\n{one.answer}" for one in examples(0, count)]
        texts.write_text("\n\n".join(plain) + "\n", encoding="utf-8")
    train(output / "base", [*PRETRAINING, f"corpus.sources={{tasks: {texts}}}", "train.epochs=6"])
    return output / "base" / "model"


def train(folder: Path, words: list[str]) -> None:
    """One run in a process of its own; one that was cut off goes on."""
    if (folder / "metrics.json").exists():
        return
    resumed = ["--resume", str(folder)] if (folder / "recipe.yaml").exists() else None
    command = [sys.executable, "-m", "igla", "train"]
    subprocess.run([*command, *(resumed or [*words, "--output", str(folder)])], check=True)


def measured(folder: Path, tests: list[Example]) -> dict[str, Any]:
    """The figures of a finished run."""
    metrics = read_json(folder / "metrics.json")
    training = metrics["training"]
    figures = {
        "validation_loss": metrics["best"]["validation_loss"],
        "seconds": training["seconds"],
        "peak_memory": training["peak_memory"],
        "saved_bytes": sum(one.stat().st_size for one in (folder / "model").glob("*.safetensors")),
    }
    if tests:
        right: dict[str, list[bool]] = {kind: [] for kind in KINDS}
        for test, given in zip(tests, answers(folder / "model", tests), strict=True):
            right[test.kind].append(test.is_right(given))
        figures |= {kind: mean(marks) for kind, marks in right.items() if marks}
        figures["exact_match"] = mean(mark for marks in right.values() for mark in marks)
    return figures


def answers(folder: Path, tests: list[Example]) -> list[str]:
    """What a tuned decoder says to each prompt, by its likeliest tokens."""
    tokenizer, template = load_tokenizer(folder), ChatTemplate.of_folder(folder)
    assert template is not None, f"{folder} has no chat template"
    ends = read_json(folder / "generation_config.json")["eos_token_id"]
    scheduler = Scheduler(TorchBackend(open_decoder(folder)))
    given: dict[int, list[int]] = {}
    for test in tests:
        text = template.prompt(test.messages[:1])
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        greedy = [Autoregressive(Sampling())]
        given[scheduler.submit(ids, greedy, max_tokens=_LONGEST, stop_tokens=ends)] = []
    while not scheduler.idle:
        for progress in scheduler.step():
            given[progress.request] += [one.token for one in progress.tokens]
    return tokenizer.decode_batch(list(given.values()))


def lines(found: dict[str, list[dict[str, Any]]], *, exact: bool) -> list[str]:
    """Means over the seeds, as a Markdown table."""
    kinds = ["exact_match", *KINDS] if exact else []
    head = ["method", *(kind.replace("_", " ") for kind in kinds)]
    head += ["validation loss", "training, s", "peak memory, MB", "saved, MB"]
    table = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for method, runs in found.items():
        average = {name: mean(one[name] for one in runs) for name in runs[0]}
        cells = [method, *(f"{average[kind]:.1%}" for kind in kinds if kind in average)]
        cells += [f"{average['validation_loss']:.3f}", f"{average['seconds']:.0f}"]
        cells += [f"{average[name] / 1e6:.1f}" for name in ("peak_memory", "saved_bytes")]
        table.append(f"| {' | '.join(cells)} |")
    return table


if __name__ == "__main__":
    main()
