"""Masked-language-model pretraining by transformers' Trainer on windows that igla has cut.

Nothing of igla is imported here, since that alone would make torch's threads faster.

Job: folder (with windows.npz of ids and offsets, and tokenizer.json), vocab_size, batch_size,
steps, warmup (steps that are not counted), mask_share, arguments (of TrainingArguments), attention.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import (
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)

from minilm.trainer_worker import Clock, minilm, peak_memory
from minilm.workers import Answer, Job, answer


@dataclass
class CountingMasks(DataCollatorForLanguageModeling):
    """Counts the real tokens of each batch."""

    counts: list[int] = field(default_factory=list)

    def __call__(self, features: Any, return_tensors: Any = None) -> Any:
        self.counts.append(sum(len(one["input_ids"]) for one in features))
        return super().__call__(features, return_tensors)


def work(job: Job) -> Answer:
    folder = Path(job["folder"])
    set_seed(1)
    with np.load(folder / "windows.npz") as file:
        parts = np.split(file["ids"].astype(np.int64), file["offsets"][1:-1])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]", mask_token="[MASK]"
    )
    clock = Clock(job["warmup"])
    collator = CountingMasks(tokenizer, mlm_probability=job["mask_share"])
    trainer = Trainer(
        model=BertForMaskedLM(minilm(job["vocab_size"], dropout=0.0, attention=job["attention"])),
        args=TrainingArguments(
            output_dir=str(folder / "trainer"),
            per_device_train_batch_size=job["batch_size"],
            max_steps=job["steps"],
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
            report_to="none",
            **job["arguments"],
        ),
        train_dataset=[{"input_ids": ids.tolist()} for ids in parts],
        data_collator=collator,
        callbacks=[clock],
    )
    trainer.train()
    return {
        "seconds": clock.ended - clock.begun,
        "tokens": sum(collator.counts[job["warmup"] : job["steps"]]),
        "peak_memory": peak_memory(),
    }


if __name__ == "__main__":
    answer(work)
