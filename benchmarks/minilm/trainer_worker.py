"""One training by transformers' Trainer on the same rows, from the same weights if there are any.

Nothing of igla is imported here, since that alone would make torch's threads faster.

Job: folder (of rows.prepare), vocab_size, batch_size, steps, warmup (steps that are not counted),
dropout, seed, base (folder with initial weights, or null), arguments (of TrainingArguments),
attention (implementation), evaluate (whether to report the validation loss).
"""

import resource
import time
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
    clock = Clock(job["warmup"])
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
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[clock],
    )
    trainer.train()
    counted = (job["steps"] - job["warmup"]) / job["steps"]
    found = {
        "seconds": clock.ended - clock.begun,
        "rows": len(rows) * counted,
        "tokens": sum(len(row["input_ids"]) for row in rows) * counted,
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    if job["evaluate"]:
        validation = read_rows(folder / "validation.npz")
        found["validation_loss"] = trainer.evaluate(validation)["eval_loss"]
    return found


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
