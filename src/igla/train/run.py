"""One training from recipe to report, in its own folder.

A run folder holds: recipe.yaml (resolved), data.json (what was dropped, cut and chosen),
environment.json, tokenizer/, versions/, metrics.jsonl, train.log, and at the end model/,
metrics.json, predictions.csv and report.html.
"""

import fcntl
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from igla.adapt.attached import Attached
from igla.data.mixture import MixturePlan
from igla.data.plan import DataPlan, Plan
from igla.errors import UserError
from igla.model.decoder import Decoder
from igla.model.encoder import Encoder
from igla.model.folder import read_json
from igla.model.parts import Embedding
from igla.objective import Objective
from igla.ops.native import native
from igla.optim import Ema, learning_rate_factor
from igla.recipe import AUTO_BASE, Recipe, load_recipe
from igla.sealed import remove_unfinished, write_durably
from igla.train.adapting import adapt
from igla.train.applicable import check_applicable, not_used
from igla.train.classification import Classification
from igla.train.consolidation import CONSOLIDATION, consolidated
from igla.train.environment import changes, environment
from igla.train.finish import METRICS, MODEL, PREDICTIONS, REPORT
from igla.train.interrupt import Interrupts
from igla.train.log import LOG, MetricsLog, read_records
from igla.train.loop import LoopSettings, fit
from igla.train.optimizer import make_optimizer
from igla.train.others import OTHERS, note_others
from igla.train.planning import check_curriculum, make_plan
from igla.train.precision import Precision, choose_device, choose_precision
from igla.train.pretext import PRETEXTS
from igla.train.pretraining import Pretraining
from igla.train.profile import StepProfile
from igla.train.progress import TrainingProgress
from igla.train.resolve import resolve, total_steps
from igla.train.scaling import LossScale
from igla.train.setup import DATA
from igla.train.state import TrainState
from igla.train.supervised import SupervisedTuning
from igla.train.task import Ended, Say, Task
from igla.train.throughput import Throughput
from igla.train.version import Versions
from igla.train.vocabulary import TOKENIZER

RECIPE, ENVIRONMENT, VERSIONS = "recipe.yaml", "environment.json", "versions"


def _filling(recipe: Recipe, folder: Path, say: Say) -> Task:
    """Masks are learned to be filled in the assistant's turns of conversations, or in texts."""
    if recipe.data.source is None:
        return Pretraining.open(recipe, folder, say)
    if recipe.corpus.sources:
        raise UserError("objective.task=wedlm learns from conversations or from texts, not both.")
    return SupervisedTuning.open(recipe, folder, say)


# What a recipe may ask for (objective.task).
TASKS: dict[str, Callable[[Recipe, Path, Say], Task]] = {
    "classify": Classification.open,
    **dict.fromkeys(PRETEXTS, Pretraining.open),
    "sft": SupervisedTuning.open,
    "wedlm": _filling,
}


@dataclass(frozen=True)
class Extras:
    """What a run writes besides its own files.

    tensorboard  the metrics as TensorBoard files
    profile      where the time of some steps goes
    """

    tensorboard: bool = False
    profile: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a run ended: whole, or interrupted and to be resumed."""

    folder: Path
    finished: bool


@dataclass
class Run:
    """A run between its set-up and its end."""

    folder: Path
    recipe: Recipe
    task: Task
    model: Any
    adapted: Attached | None
    state: TrainState
    objective: Objective
    plan: Plan
    settings: LoopSettings
    versions: Versions
    log: MetricsLog
    profiling: bool
    console: Console
    say: Say
    last_save: float

    def evaluation_due(self) -> bool:
        """Whether the state stands where a validation belongs that it does not hold yet."""
        every = -(-self.plan.steps_per_epoch // self.recipe.train.evaluations_per_epoch)
        step = self.state.step
        if step == 0 or (step % every and step != self.settings.total_steps):
            return False
        return not any(record["step"] == step for record in self.state.evaluations)

    def save_due(self) -> bool:
        often = self.recipe.train.save_steps
        minutes = (time.monotonic() - self.last_save) / 60
        return (
            bool(often and self.state.step % often == 0)
            or minutes >= self.recipe.train.save_minutes
            or self.evaluation_due()
        )

    def save(self) -> None:
        # The lines first: a version must not be there without the steps that led to it.
        self.log.sync()
        self.versions.save(self.state)
        self.versions.prune(self.recipe.train.keep_last, self.best_step())
        self.last_save = time.monotonic()

    def best_step(self) -> int | None:
        """The step of the best validation so far, the earlier of equals."""
        if not self.state.evaluations:
            return None
        best = min(self.state.evaluations, key=lambda record: record[self.task.best_by])
        return int(best["step"])

    def ended(self) -> Ended:
        """What the end needs; UserError when the best version is no longer whole."""
        step = self.best_step()
        assert step is not None
        version = self.versions.at_step(step)
        if version is None:
            raise UserError(
                f"The best version, of step {step}, is damaged or gone from {self.folder}; "
                "train again in another folder."
            )
        return Ended(self.folder, self.recipe, self.model, self.adapted, version, step)

    def stale(self) -> bool:
        """Whether the validations have stopped improving."""
        patience, best = self.recipe.train.patience, self.best_step()
        since = sum(record["step"] > (best or 0) for record in self.state.evaluations)
        return patience is not None and since >= patience


def train(
    recipe: Recipe,
    folder: Path,
    console: Console,
    extras: Extras = Extras(),
    *,
    fast: bool = False,
) -> Outcome:
    """Train by a recipe in a new folder, or go on with the run that is in it.

    fast  two steps on a few rows, to see that everything works

    Raises UserError for whatever the user can mend; versions already saved stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder), (folder / "train.log").open("a", encoding="utf-8") as log:
        say = partial(_say, console, log)
        run = _start(recipe, folder, console, say, extras, fast=fast)
        with run.log:
            finished = _steps(run)
            if finished:
                run.task.finish(run.ended(), say)
        if not finished:
            say(f"saved at step {run.state.step}; go on with: igla train --resume {folder}")
    return Outcome(folder, finished)


def resume(folder: Path, console: Console, extras: Extras = Extras()) -> Outcome:
    """Go on with the run in a folder from its newest whole version."""
    if not (folder / RECIPE).is_file():
        raise UserError(f"{folder} holds no run: there is no {RECIPE} in it.")
    return train(load_recipe(folder / RECIPE), folder, console, extras)


def latest_run(parent: Path) -> Path:
    """The run in a folder of runs that was begun last."""
    runs = [path.parent for path in parent.glob(f"*/{RECIPE}")]
    if not runs:
        raise UserError(f"There is no run in {parent} to resume; name its folder.")
    return max(runs, key=lambda run: (run / RECIPE).stat().st_mtime_ns)


def _start(
    recipe: Recipe, folder: Path, console: Console, say: Say, extras: Extras, *, fast: bool
) -> Run:
    recipe = _as_begun(recipe, folder)
    check_applicable(recipe)
    check_curriculum(recipe.curriculum)
    if not (folder / RECIPE).exists():
        write_durably(folder / RECIPE, recipe.to_yaml())
    device = choose_device(recipe.train.device)
    precision = _precision(recipe, folder, device, say)
    task = TASKS[recipe.objective.task](recipe, folder, say)
    recipe = task.settled(recipe)
    if names := not_used(recipe):
        owner = "teacher" if recipe.model.base is None else "base"
        say(f"not used, since the {owner} has its own: {', '.join(names)}")
    note_others(recipe, folder)
    if fast:
        task = task.shrunk(2 * recipe.train.batch_size)
        recipe = recipe.replace(train__steps=2, objective__ewc_rows=2)
    plain = DataPlan(
        task.store.lengths[task.rows],
        recipe.train.batch_size,
        recipe.train.seed,
        recipe.train.batch_tokens,
    )
    recipe, said = resolve(recipe, len(task.rows), plain.steps_per_epoch, precision)
    for line in said:
        say(line)
    if device.type == "cpu":
        say(f"operations {native().said}")
    write_durably(folder / RECIPE, recipe.to_yaml())
    model = task.build_model(recipe, say)
    adapted = adapt(recipe, model, say)
    model.to(device)
    # Here the model is the base, and computes in float32.
    objective = consolidated(task.objective(recipe), recipe, task.encoder, model, folder, say)
    for module in model.modules():
        if isinstance(module, Encoder | Decoder):  # a generator has an encoder of its own
            module.compute_dtype = precision.dtype
            module.checkpoint_activations = recipe.train.activation_checkpointing
    optim = recipe.optim
    assert optim.learning_rate != "auto" and optim.warmup_steps != "auto"
    optimizer = make_optimizer(optim, model, recipe.adapt, all_rows=recipe.objective.ewc > 0)
    steps = total_steps(recipe, plain.steps_per_epoch)
    plan = make_plan(recipe, task, plain, steps, say)
    factor = partial(
        learning_rate_factor, optim.schedule, warmup_steps=optim.warmup_steps, total_steps=steps
    )
    peak = optim.learning_rate
    settings = LoopSettings(
        total_steps=steps,
        micro_batch_size=recipe.train.micro_batch_size,
        learning_rate=lambda step: peak * factor(step),
        clip_norm=optim.clip_norm,
        seed=recipe.train.seed,
        device=device,
    )
    ema = Ema(model, optim.ema) if optim.ema else None
    state = TrainState(model, optimizer, ema, LossScale.for_precision(precision.name))
    for name in (
        RECIPE,
        ENVIRONMENT,
        OTHERS,
        DATA,
        CONSOLIDATION,
        TOKENIZER,
        LOG,
        MODEL,
        METRICS,
        PREDICTIONS,
        REPORT,
    ):
        remove_unfinished(folder, name)
    versions = Versions(folder / VERSIONS)
    versions.clean()
    if newest := versions.newest(say):
        state.load(newest)
        say(f"resuming from {newest.name} of {steps} steps")
    log = MetricsLog(folder, tensorboard=extras.tensorboard)
    log.start_at(state.step, {record["step"] for record in state.evaluations})
    return Run(
        folder=folder,
        recipe=recipe,
        task=task,
        model=model,
        adapted=adapted,
        state=state,
        objective=objective,
        plan=plan,
        settings=settings,
        versions=versions,
        log=log,
        profiling=extras.profile,
        console=console,
        say=say,
        last_save=time.monotonic(),
    )


def _as_begun(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with the base that was chosen for the run in the folder when it began."""
    if recipe.model.base != AUTO_BASE or not (folder / RECIPE).is_file():
        return recipe
    return recipe.replace(model__base=load_recipe(folder / RECIPE).model.base)


def _precision(recipe: Recipe, folder: Path, device: torch.device, say: Say) -> Precision:
    """The precision, in the surroundings that the run began in as far as they are still there."""
    noted = folder / ENVIRONMENT
    if not noted.is_file():
        precision = choose_precision(recipe.train.precision, device)
        write_durably(noted, json.dumps(environment(), ensure_ascii=False, indent=1) + "\n")
        return precision
    former = read_json(noted)
    for line in changes(former):
        say(line)
    return choose_precision(recipe.train.precision, device, former["float32_products"])


def _steps(run: Run) -> bool:
    """Step, save and validate to the end; False when a signal ended it before."""
    state, settings = run.state, run.settings
    if run.evaluation_due():  # the version was saved, and the process killed before it validated
        _evaluate(run)
    with (
        Interrupts(run.say) as interrupts,
        TrainingProgress(run.console, settings.total_steps, state.step) as progress,
        _profile(run) as profile,
        closing(
            fit(
                state,
                run.objective,
                run.task.store,
                run.task.rows,
                run.plan,
                settings,
                run.task.shown(run.recipe),
                interrupts.urgent,
            )
        ) as steps,
    ):
        for step in () if run.stale() else steps:
            run.log.step(step)
            progress.step(step)
            if profile:
                profile.step()
            if run.save_due() or interrupts.asked:
                run.save()
            if run.evaluation_due():
                _evaluate(run)
            if interrupts.asked:
                break
            if run.stale():
                run.say(f"stopped early: no improvement in {run.recipe.train.patience} validations")
                break
        if state.micro_step:
            run.save()
    for module in run.model.modules():
        if isinstance(module, Embedding):
            module.before_reading = None  # the optimizer has done its work
    if state.step:
        run.say(Throughput.of(read_records(run.folder)).said)
    return not interrupts.asked or state.step == settings.total_steps


def _profile(run: Run) -> AbstractContextManager[StepProfile | None]:
    if not run.profiling:
        return nullcontext()
    return StepProfile(run.folder, run.settings.total_steps - run.state.step, run.say)


def _evaluate(run: Run) -> None:
    """Validate, log and remember."""
    ema = run.state.ema
    with nullcontext() if ema is None else ema.swapped(run.model):
        evaluation = run.task.evaluate(run.model)
    record = {"step": run.state.step, **evaluation.figures, **_shares_seen(run)}
    run.state.evaluations.append(record)
    run.log.evaluation(record)
    run.say(f"step {run.state.step}: {evaluation.said}")


def _shares_seen(run: Run) -> dict[str, float]:
    """What each source has made of what was seen since the last validation, told and returned."""
    names = run.task.sources.names
    if not isinstance(run.plan, MixturePlan) or len(names) == 1:
        return {}
    last = max((record["step"] for record in run.state.evaluations), default=0)
    seen = run.plan.seen(last, run.state.step)
    said = ", ".join(f"{name} {share:.1%}" for name, share in zip(names, seen, strict=True))
    run.say(f"seen since step {last}: {said}")
    return {f"share_of_{name}": float(share) for name, share in zip(names, seen, strict=True)}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The run for this process alone; UserError when another one has it."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"Another process is at work on the run {folder}.") from None
        yield


def _say(console: Console, log: Any, line: str) -> None:
    console.print(line)
    log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
    log.flush()
