"""Causal language modelling by transformers' Trainer on windows that igla has cut.

Nothing of igla is imported here, since that alone would make torch's threads faster.

Job: folder (with windows.npz of ids [N, length]), config (of LlamaConfig), batch_size, steps,
warmup (steps that are not counted), arguments (of TrainingArguments), attention, dtype (of the
weights).
"""

from pathlib import Path

import numpy as np
import torch
from minilm.trainer_worker import Clock, peak_memory
from minilm.workers import Answer, Job, answer
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)


def work(job: Job) -> Answer:
    folder = Path(job["folder"])
    set_seed(1)
    with np.load(folder / "windows.npz") as file:
        windows = file["ids"].astype(np.int64)
    config = LlamaConfig(**job["config"], attn_implementation=job["attention"])
    clock = Clock(job["warmup"])
    trainer = Trainer(
        model=LlamaForCausalLM(config).to(getattr(torch, job["dtype"])),
        args=TrainingArguments(
            output_dir=str(folder / "trainer"),
            per_device_train_batch_size=job["batch_size"],
            max_steps=job["steps"],
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
            report_to="none",
            weight_decay=0.1,
            **job["arguments"],
        ),
        train_dataset=[{"input_ids": ids, "labels": ids} for ids in windows],
        data_collator=default_data_collator,  # all are of one length: nothing is padded
        callbacks=[clock],
    )
    done = trainer.train()
    return {
        "seconds": clock.ended - clock.begun,
        "tokens": (job["steps"] - job["warmup"]) * job["batch_size"] * windows.shape[1],
        "loss": done.training_loss,
        "peak_memory": peak_memory(),
    }


if __name__ == "__main__":
    answer(work)
