"""MiniLM with transformers' own initial weights, and a tokenizer, in a folder.

Job: vocab_size, dropout, seed, tokenizer (folder), output (folder).
"""

import shutil

from transformers import BertForSequenceClassification, set_seed

from minilm.trainer_worker import minilm
from minilm.workers import Answer, Job, answer


def work(job: Job) -> Answer:
    set_seed(job["seed"])
    model = BertForSequenceClassification(minilm(job["vocab_size"], job["dropout"]))
    model.save_pretrained(job["output"])
    shutil.copytree(job["tokenizer"], job["output"], dirs_exist_ok=True)
    return {}


if __name__ == "__main__":
    answer(work)
