"""Some training steps of MiniLM on texts that are all of one length.

Job: length, batch_size, vocab_size, steps, warmup (steps that are not counted).
"""

import numpy as np
import torch

from igla.data.plan import DataPlan
from igla.data.store import TokenStore
from igla.model.config import named_config
from igla.model.encoder import SequenceClassifier
from igla.objective.classify import classification
from igla.recipe import load_recipe
from igla.train.loop import LoopSettings, fit
from igla.train.memory import peak_memory
from igla.train.optimizer import make_optimizer
from igla.train.precision import choose_precision
from igla.train.scaling import LossScale
from igla.train.state import TrainState
from minilm.workers import Answer, Job, answer


def work(job: Job) -> Answer:
    length, batch_size, vocab_size = job["length"], job["batch_size"], job["vocab_size"]
    device, recipe = torch.device("cpu"), load_recipe(None, ["optim.learning_rate=1e-4"])
    random, rows = np.random.default_rng(0), batch_size * job["steps"]
    precision = choose_precision("auto", device)
    model = SequenceClassifier(
        named_config("minilm-l6-h384", vocab_size=vocab_size, max_positions=length), 2
    )
    model.encoder.compute_dtype = precision.dtype
    optimizer = make_optimizer(recipe.optim, model)
    store = TokenStore(
        tokens=random.integers(0, vocab_size, rows * length),
        offsets=np.arange(rows + 1) * length,
        lost=np.zeros(rows, dtype=np.int64),
        labels=random.integers(0, 2, rows),
        weights=np.ones(rows, dtype=np.float32),
    )
    settings = LoopSettings(
        total_steps=job["steps"],
        micro_batch_size=None,
        learning_rate=lambda step: 1e-4,
        clip_norm=1.0,
        seed=1,
        device=device,
    )
    steps = fit(
        TrainState(model, optimizer, None, LossScale.for_precision(precision.name)),
        classification(recipe.objective, store.labels, 2),
        store,
        np.arange(rows),
        DataPlan(store.lengths, batch_size, seed=1),
        settings,
    )
    seconds = [step.seconds for step in steps][job["warmup"] :]
    # The last step makes up for all updates of rows that were put off.
    late = max(0.0, seconds[-1] - float(np.median(seconds))) / job["steps"]
    per_token = (float(np.median(seconds)) + late) / (batch_size * length)
    return {"microseconds_per_token": per_token * 1e6, "peak_memory": peak_memory()}


if __name__ == "__main__":
    answer(work)
