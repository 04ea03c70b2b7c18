"""The training loop: a generator that yields one event an optimizer step."""

import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch.profiler import record_function

from igla.data.batch import PackedBatch
from igla.data.plan import Plan, micro_batches
from igla.data.store import TokenStore
from igla.errors import UserError
from igla.model.decoder.experts import rebalance
from igla.objective import Objective
from igla.optim import apply_gradients, make_summable, set_learning_rate
from igla.train.memory import peak_memory, steady_memory
from igla.train.state import TrainState


@dataclass(frozen=True)
class Step:
    """What one optimizer step did.

    step           steps done, this one included
    loss           mean over the whole accumulated batch; parts: what else the objective tells, so
    gradient_norm  of what was stepped with, before clipping
    skipped        the gradient overflowed under fp16, and the step was left out
    tokens         in this step
    seconds        this step took; `waited` of them for data
    ended          when, in seconds since 1970
    peak_memory    bytes that the process has held at most
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    skipped: bool
    tokens: int
    sequences: int
    seconds: float
    waited: float
    ended: float
    peak_memory: int
    parts: dict[str, float]


@dataclass(frozen=True)
class LoopSettings:
    """How the loop runs.

    learning_rate  of step n, counted from 0
    clip_norm      largest norm of the gradient, or None
    """

    total_steps: int
    micro_batch_size: int | None
    learning_rate: Callable[[int], float]
    clip_norm: float | None
    seed: int
    device: torch.device


def fit(
    state: TrainState,
    objective: Objective,
    store: TokenStore,
    rows: np.ndarray,
    plan: Plan,
    settings: LoopSettings,
    shown: Callable[[np.ndarray, int], PackedBatch] | None = None,
    stop_now: Callable[[], bool] = lambda: False,
) -> Generator[Step]:
    """Train from where the state stands to the last step, one event a step.

    rows      numbers in the store of the rows that the plan counts from 0
    shown     the given rows of the store as a step shows them, where that is not as they are
    stop_now  asked between micro-batches; when it says yes the generator ends at once, and the
              state, saved with its partial gradients, can be continued from there

    Stopping after any event, saving and loading the state and calling fit again gives the same
    losses and weights, bit for bit on the same machine. Between events some rows of the weights may
    be late (optim.AdamW): state.settle() before reading them. Raises UserError when the loss
    diverges.
    """

    def as_they_are(rows: np.ndarray, step: int) -> PackedBatch:
        return store.batch(rows)

    state.model.train()
    with steady_memory(), ExitStack() as at_the_end:
        at_the_end.callback(state.settle)
        while state.step < settings.total_steps:
            start, waited = time.perf_counter(), 0.0
            tokens = sequences = 0
            parts = micro_batches(plan.rows(state.step), settings.micro_batch_size)
            for micro_step, part in enumerate(parts):
                sequences += len(part)
                tokens += int(store.lengths[rows[part]].sum())
                if micro_step < state.micro_step:
                    continue
                asked = time.perf_counter()
                with record_function("data"):
                    batch = (shown or as_they_are)(rows[part], state.step).to(settings.device)
                waited += time.perf_counter() - asked
                _accumulate(state, objective, batch, settings)
                if stop_now():
                    return
            weight = plan.weight(state.step)
            yield _update(state, settings, weight, start, waited, tokens, sequences)


def _accumulate(
    state: TrainState, objective: Objective, batch: PackedBatch, settings: LoopSettings
) -> None:
    """Add the next micro-batch's gradients and loss to what the state has of them."""
    # Seeding for each, and not once, spares the checkpoint the generator's state.
    _seed_dropout(settings, state.step, state.micro_step)
    make_summable(state.model.parameters())
    with record_function("forward"):
        loss = objective.loss(state.model, batch)
    with record_function("backward"):
        (loss.sum * state.scale.factor).backward()
    state.loss_sum += loss.sum.item()
    state.loss_count += loss.count.item()
    for name, value in loss.parts.items():
        state.loss_parts[name] = state.loss_parts.get(name, 0.0) + value.item()
    state.micro_step += 1


def _update(
    state: TrainState,
    settings: LoopSettings,
    weight: float,
    start: float,
    waited: float,
    tokens: int,
    sequences: int,
) -> Step:
    """Weigh the mean of the summed gradients, clip, step, and clear what was accumulated."""
    rate = settings.learning_rate(state.step)
    set_learning_rate(state.optimizer, rate)
    count = state.loss_count or 1.0  # a few words of which none was hidden teach nothing
    divisor = count * state.scale.factor
    with record_function("optimizer"):
        norm = apply_gradients(state.optimizer, weight / divisor, settings.clip_norm)
    finite = bool(np.isfinite(norm))
    mean_loss = state.loss_sum / count
    means = {name: value / count for name, value in state.loss_parts.items()}
    if not finite and not state.scale.dynamic:
        raise UserError(
            f"The training diverged at step {state.step + 1} (loss {mean_loss:.3g}, gradient norm "
            f"{norm:.3g}, learning rate {rate:.2g}); try a lower optim.learning_rate."
        )
    rebalance(state.model)
    if finite and state.ema is not None:
        state.ema.update(state.model)
    state.scale.update(finite)
    state.optimizer.zero_grad(set_to_none=True)
    state.loss_sum = state.loss_count = 0.0
    state.loss_parts = {}
    state.micro_step = 0
    state.step += 1
    state.tokens += tokens
    if state.step == settings.total_steps:
        state.settle()  # what was put off until now is part of the work
    return Step(
        step=state.step,
        loss=mean_loss,
        learning_rate=rate,
        gradient_norm=norm,
        skipped=not finite,
        tokens=tokens,
        sequences=sequences,
        seconds=time.perf_counter() - start,
        waited=waited,
        ended=time.time(),
        peak_memory=peak_memory(),
        parts=means,
    )


def _seed_dropout(settings: LoopSettings, step: int, micro_step: int) -> None:
    entropy = np.random.SeedSequence([settings.seed, step, micro_step])
    seed = int(entropy.generate_state(1, np.uint64)[0] >> 1)
    # Not torch.manual_seed, which formats a traceback for each kind of device that is not there.
    torch.default_generator.manual_seed(seed)
    if settings.device.type == "cuda":
        torch.cuda.manual_seed(seed)
