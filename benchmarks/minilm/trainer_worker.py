"""One training by transformers' Trainer on the same rows, from the same weights if there are any.

Nothing of igla is imported here, since that alone would make torch's threads faster.

Job: folder (of rows.prepare), vocab_size, batch_size, steps, warmup (steps that are not counted),
dropout, seed, base (folder with initial weights, or null), arguments (of TrainingArguments),
attention (implementation), evaluate (whether to report the validation loss).
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from minilm.workers import Answer, Job, answer


@dataclass
class Counting(DataCollatorWithPadding):
    """Counts rows and real tokens of each batch."""

    counts: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, features: list[dict[str, Any]]) -> Any:
        self.counts.append((len(features), sum(len(one["input_ids"]) for one in features)))
        return super().__call__(features)


class Clock(TrainerCallback):
    """Measures from the end of step `warmup` to the end of the last one."""

    def __init__(self, warmup: int):
        self.warmup = warmup
        self.begun = self.ended = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.ended = time.perf_counter()
        if state.global_step == self.warmup:
            self.begun = self.ended


def work(job: Job) -> Answer:
    folder = Path(job["folder"])
    set_seed(job["seed"])
    rows = read_rows(folder / "train.npz")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer" / "tokenizer.json"), pad_token="[PAD]"
    )
    clock, collator = Clock(job["warmup"]), Counting(tokenizer)
    trainer = Trainer(
        model=build_model(job),
        args=TrainingArguments(
            output_dir=str(folder / "trainer"),
            per_device_train_batch_size=job["batch_size"],
            max_steps=job["steps"],
            seed=job["seed"],
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
            report_to="none",
            **job["arguments"],
        ),
        train_dataset=rows,
        data_collator=collator,
        callbacks=[clock],
    )
    trainer.train()
    counted = collator.counts[job["warmup"] : job["steps"]]
    found = {
        "seconds": clock.ended - clock.begun,
        "rows": sum(rows for rows, _ in counted),
        "tokens": sum(tokens for _, tokens in counted),
        "peak_memory": peak_memory(),
    }
    if job["evaluate"]:
        validation = read_rows(folder / "validation.npz")
        found["validation_loss"] = trainer.evaluate(validation)["eval_loss"]
    return found


def peak_memory() -> int:
    """In bytes; not by getrusage, which counts the process that this one was forked from."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of rows.prepare() as Trainer takes them."""
    with np.load(path) as file:
        parts = np.split(file["ids"].astype(np.int64), file["offsets"][1:-1])
        return [
            {"input_ids": ids.tolist(), "labels": int(label)}
            for ids, label in zip(parts, file["labels"], strict=True)
        ]


def build_model(job: Job) -> BertForSequenceClassification:
    """MiniLM-L6-H384 with two classes: new, or from a folder."""
    if job["base"] is not None:
        return BertForSequenceClassification.from_pretrained(
            job["base"], attn_implementation=job["attention"]
        )
    config = minilm(job["vocab_size"], job["dropout"], job["attention"])
    return BertForSequenceClassification(config)


def minilm(vocab_size: int, dropout: float, attention: str = "sdpa") -> BertConfig:
    """The shape of MiniLM-L6-H384 (Wang et al. 2020)."""
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        num_labels=2,
        attn_implementation=attention,
    )


if __name__ == "__main__":
    answer(work)
