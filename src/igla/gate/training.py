"""Training a copy: from where a round's saved state stands to the round's end."""

import json
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial

import numpy as np
import torch
from safetensors.torch import load_file

from igla.data.plan import DataPlan
from igla.data.rows import sample
from igla.data.store import TokenStore
from igla.gate.learning import Lot
from igla.gate.material import Rows
from igla.gate.round import Learner, Round
from igla.gate.versions import read_small
from igla.infer.classifier import Classifier
from igla.objective.classify import Classify
from igla.objective.ewc import Anchored, anchored
from igla.optim import build_optimizer, learning_rate_factor, load_optimizer_tensors
from igla.sealed import write_durably
from igla.train.loop import LoopSettings, Step, fit
from igla.train.scaling import LossScale
from igla.train.state import OPTIMIZER, TrainState
from igla.train.version import Versions as Checkpoints

# Which of the weighted losses: one question, is the second class right?
_BINARY = Classify("binary_cross_entropy", False, None, 0.0, 2.0)


def train_copy(
    learner: Learner,
    at_work: Round,
    copy: Classifier,
    lot: Lot,
    between: Callable[[Step], None],
    reminders: Rows,
) -> TrainState:
    """Train a copy from where the round's saved state stands to the end of the round.

    reminders  old rows that still stand, of which what they have taught is to be kept
    """
    settings, store = learner.settings.learning, lot.store(copy.encoder, learner.block)
    rows = np.arange(len(lot.texts))
    plan = DataPlan(store.lengths, settings.batch_size, at_work.seed)
    total = max(1, round(settings.epochs * plan.steps_per_epoch))
    factor = partial(learning_rate_factor, "linear", warmup_steps=total // 10, total_steps=total)
    loop = LoopSettings(
        total_steps=total,
        micro_batch_size=settings.micro_batch_size,
        learning_rate=lambda step: settings.learning_rate * factor(step),
        clip_norm=settings.clip_norm,
        seed=at_work.seed,
        device=torch.device("cpu"),
    )
    objective = _anchored(learner, at_work, copy, reminders)
    state = _start_state(learner, at_work, copy)
    checkpoints = Checkpoints(learner.home.learning / "state")
    checkpoints.clean()
    note = learner.home.learning / "lot.json"
    of_lot = {"fingerprint": lot.fingerprint}
    same = note.exists() and read_small(note) == of_lot
    newest = checkpoints.newest(lambda said: None) if same else None
    if newest is not None:
        state.load(newest)
    elif checkpoints.folder.is_dir():
        shutil.rmtree(checkpoints.folder)  # of rows that are no longer there
    write_durably(note, json.dumps(of_lot) + "\n")
    saved = time.monotonic()
    with closing(fit(state, objective, store, rows, plan, loop)) as going:
        for step in going:
            if time.monotonic() - saved >= settings.save_seconds:
                checkpoints.save(state)
                checkpoints.prune(1, None)
                saved = time.monotonic()
            between(step)
    checkpoints.save(state)
    copy.model.eval()
    return state


def _anchored(
    learner: Learner, at_work: Round, copy: Classifier, reminders: Rows
) -> Anchored | Classify:
    """The objective, anchored where the weights are before the round's first step."""
    settings = learner.settings.learning
    if not settings.elasticity or not len(reminders):
        return _BINARY
    rows = sample(np.arange(len(reminders)), settings.fisher_rows, at_work.seed)
    old = Lot(
        tuple(reminders.texts[row] for row in rows),
        reminders.targets[rows],
        np.ones(len(rows), dtype=np.float32),
        0,
    )
    store: TokenStore = old.store(copy.encoder, learner.block)
    examples = (store.batch(np.array([row])) for row in range(len(rows)))
    return anchored(_BINARY, copy.model, _BINARY, examples, settings.elasticity)


def _start_state(learner: Learner, at_work: Round, copy: Classifier) -> TrainState:
    """The copy with the optimizer as its parent's round has left it."""
    settings = learner.settings.learning
    optimizer = build_optimizer(
        "adamw",
        copy.model,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        betas=(0.9, 0.999),
        epsilon=1e-8,
        momentum=0.0,
    )
    former = learner.home.versions.path(at_work.parent) / OPTIMIZER
    if former.is_file():
        load_optimizer_tensors(optimizer, load_file(former))
    return TrainState(copy.model, optimizer, None, LossScale.for_precision("float32"))
