"""The plainest loop with transformers' model and torch's AdamW, in float32: its losses.

Job: folder (of rows.prepare), base (folder with initial weights), rate, warmup_steps.
The batches are those of igla's plan, in its order; the rates those of its cosine schedule.
"""

import itertools
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import BertForSequenceClassification

from igla.optim import learning_rate_factor
from minilm.trainer_worker import read_rows
from minilm.workers import Answer, Job, answer


def work(job: Job) -> Answer:
    model = BertForSequenceClassification.from_pretrained(job["base"]).train()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    )
    rows = read_rows(Path(job["folder"]) / "train.npz")
    with np.load(Path(job["folder"]) / "train.npz") as file:
        starts = np.concatenate([[0], np.cumsum(file["batches"])])
    batches = [rows[start:end] for start, end in itertools.pairwise(starts)]
    losses = []
    for step, batch in enumerate(batches):
        factor = learning_rate_factor(
            "cosine", step, warmup_steps=job["warmup_steps"], total_steps=len(batches)
        )
        for group in optimizer.param_groups:
            group["lr"] = job["rate"] * factor
        ids = [torch.tensor(row["input_ids"]) for row in batch]
        mask = [torch.ones_like(one) for one in ids]
        loss = model(
            input_ids=nn.utils.rnn.pad_sequence(ids, batch_first=True),
            attention_mask=nn.utils.rnn.pad_sequence(mask, batch_first=True),
            labels=torch.tensor([row["labels"] for row in batch]),
        ).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return {"losses": losses}


if __name__ == "__main__":
    answer(work)
