"""The end of a classifier's run: calibrate, choose the threshold, measure, save, report."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from igla.adapt.attached import Attached
from igla.data.split import PARTS, TEST, TRAIN, VALIDATION
from igla.evaluate.baseline import DESCRIPTION, NAME, Baseline, blended
from igla.evaluate.calibration import fit_temperature, reliability
from igla.evaluate.card import render_card
from igla.evaluate.measurement import Measurement, differences, table_lines, verdict
from igla.evaluate.metrics import Scored, choose_threshold
from igla.evaluate.report import render_report
from igla.infer.classifier import Classifier, DecisionRule
from igla.model.encoder import SequenceClassifier
from igla.recipe import Recipe
from igla.sealed import write_durably, write_sealed
from igla.train.environment import processor
from igla.train.log import read_records
from igla.train.setup import Setup, logits_of
from igla.train.state import load_weights
from igla.train.throughput import Throughput
from igla.train.vocabulary import TOKENIZER

MODEL, METRICS, REPORT = "model", "metrics.json", "report.html"
PREDICTIONS = "predictions.csv"
# The baseline learns from at most so many rows, in which time it is ready in seconds.
BASELINE_ROWS = 50_000


@dataclass(frozen=True)
class Finished:
    """What a training leaves to its end (task.Ended), and what it began with."""

    folder: Path
    recipe: Recipe
    model: SequenceClassifier
    adapted: Attached | None
    version: Path
    step: int
    setup: Setup


def finish(run: Finished, say: Callable[[str], None]) -> None:
    """Measure the best version in float32 and write model/, metrics.json,
    predictions.csv and report.html."""
    records = read_records(run.folder)
    training = Throughput.of(records)
    load_weights(run.model, run.version, averaged=run.recipe.optim.ema > 0)
    run.model.encoder.compute_dtype = torch.float32
    part = TEST if len(run.setup.rows(TEST)) else VALIDATION
    validation_logits = logits_of(run.model, run.setup, VALIDATION)
    logits = validation_logits if part == VALIDATION else logits_of(run.model, run.setup, part)
    rule = _decision_rule(run, validation_logits)
    uncalibrated = DecisionRule(rule.classes, rule.multi_label).probabilities(logits)
    model = Measurement("igla", _scored(run, part, rule.probabilities(logits)), rule.threshold)
    baseline = blend = None
    if part == TEST:
        baseline, blend = _baseline_and_blend(
            run, model, rule.probabilities(validation_logits), say
        )
    _tell(run, part, model, baseline, say)
    labels = run.setup.dataset.labels.values[run.setup.rows(part)]
    before = reliability(uncalibrated, labels)
    say(
        f"temperature {rule.temperature:.3f}: calibration error {before.error:.3f} before, "
        f"{model.figures['ece']:.3f} after"
    )
    _save_model(run, rule, part, model, baseline)
    content = {
        "part": PARTS[part],
        "step": run.step,
        "training": training.as_json(),
        "temperature": rule.temperature,
        "threshold": rule.threshold,
        "ece_before_temperature": before.error,
        "model": model.as_json(),
    }
    if baseline is not None:
        found = differences(model, baseline)
        content["baseline"] = {"is": DESCRIPTION} | baseline.as_json()
        content["difference"] = {name: vars(one) for name, one in found.items()}
    if blend is not None:
        content["blend"] = {"is": f"the mean log-probability of igla and {NAME}"} | blend.as_json()
    write_durably(run.folder / METRICS, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    rows = run.setup.rows(part)
    write_durably(run.folder / PREDICTIONS, _predictions(rows, model, baseline))
    page = render_report(
        name=run.folder.name,
        part=PARTS[part],
        model=model,
        baseline=baseline,
        uncalibrated=before,
        calibrated=reliability(model.scored.probabilities, labels),
        texts=run.setup.dataset.texts(rows),
        lengths=run.setup.store.lengths[rows],
        records=records,
        decisions=[decision.said for decision in run.setup.decisions],
        facts=_facts(run, rule) | {"training": training.said},
        recipe=run.recipe.to_yaml(),
    )
    write_durably(run.folder / REPORT, page)
    say(f"report: {run.folder / REPORT}")
    say(f"model:  {run.folder / MODEL}")


def _predictions(rows: np.ndarray, model: Measurement, baseline: Measurement | None) -> str:
    """As CSV: the number of each measured row (from 0), its label or labels, and all scores."""
    scored = model.scored
    truth = scored.labels if scored.multi_label else np.array(scored.classes)[scored.labels, None]
    tables = [("label", truth), ("score", scored.probabilities.round(8))]
    if baseline is not None:
        tables.append(("baseline", baseline.scored.probabilities.round(8)))
    head, columns = ["row"], [rows[:, None].astype(object)]
    for name, table in tables:
        single = table.shape[1] == 1
        head += [name] if single else [f"{name}_{label}" for label in scored.classes]
        columns.append(table.astype(object))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *np.concatenate(columns, axis=1)])
    return text.getvalue()


def _scored(run: Finished, part: int, probabilities: np.ndarray) -> Scored:
    labels = run.setup.dataset.labels
    return Scored(
        labels.classes, labels.values[run.setup.rows(part)], probabilities, labels.multi_label
    )


def _decision_rule(run: Finished, logits: np.ndarray) -> DecisionRule:
    """Temperature and threshold, both from the validation part alone."""
    labels = run.setup.dataset.labels
    temperature = fit_temperature(logits, labels.values[run.setup.rows(VALIDATION)])
    rule = DecisionRule(labels.classes, labels.multi_label, temperature)
    threshold = choose_threshold(_scored(run, VALIDATION, rule.probabilities(logits)))
    return DecisionRule(labels.classes, labels.multi_label, temperature, threshold)


def _baseline_and_blend(
    run: Finished, model: Measurement, on_validation: np.ndarray, say: Callable[[str], None]
) -> tuple[Measurement, Measurement]:
    """The baseline, and what it and the model make together, on the test part.

    on_validation  the model's probabilities on the validation part
    """
    dataset = run.setup.dataset
    rows, labels = run.setup.rows(TRAIN), dataset.labels
    if len(rows) > BASELINE_ROWS:
        say(f"the baseline learns from {BASELINE_ROWS:,} of the {len(rows):,} rows")
        rows = _some_of_all(rows, labels.strata()[rows], BASELINE_ROWS)
    values, weights = labels.values[rows], dataset.weights[rows]
    trained = Baseline(dataset.texts(rows), values, weights, len(labels.classes))
    theirs = [
        trained.probabilities(dataset.texts(run.setup.rows(part))) for part in (VALIDATION, TEST)
    ]
    ours = [on_validation, model.scored.probabilities]
    multi_label = model.scored.multi_label
    both = [blended(*pair, multi_label=multi_label) for pair in zip(ours, theirs, strict=True)]
    baseline, blend = (
        Measurement(
            name, _scored(run, TEST, on_test), choose_threshold(_scored(run, VALIDATION, first))
        )
        for name, (first, on_test) in ((NAME, theirs), (f"igla + {NAME}", both))
    )
    return baseline, blend


def _some_of_all(rows: np.ndarray, strata: np.ndarray, count: int) -> np.ndarray:
    """So many of the rows, drawn, in their order, with one of each stratum at least."""
    order = np.random.default_rng(0).permutation(len(rows))
    first = np.unique(strata[order], return_index=True)[1]
    order = np.concatenate([order[first], np.delete(order, first)])
    return np.sort(rows[order[:count]])


def _tell(
    run: Finished,
    part: int,
    model: Measurement,
    baseline: Measurement | None,
    say: Callable[[str], None],
) -> None:
    rows = len(run.setup.rows(part))
    say(f"{PARTS[part]} part, {rows:,} rows, step {run.step} [95 % intervals]:")
    for line in table_lines([model] if baseline is None else [model, baseline]):
        say(f"  {line}")
    if baseline is not None:
        say(verdict(model, baseline))
    if part == VALIDATION:
        say("no rows were kept for a test: these are those that the threshold was chosen on")


def _save_model(
    run: Finished,
    rule: DecisionRule,
    part: int,
    model: Measurement,
    baseline: Measurement | None,
) -> None:
    card = render_card(
        name=run.folder.name,
        base=run.recipe.model.base,
        part=PARTS[part],
        model=model,
        baseline=baseline,
        temperature=rule.temperature,
        max_length=run.setup.encoder.max_length,
        elsewhere=not run.model.config.ngrams,
        decisions=[decision.said for decision in run.setup.decisions],
    )
    classifier = Classifier(run.model, run.setup.encoder, rule)

    def write(folder: Path) -> None:
        if run.adapted is None:
            classifier.save(folder, run.setup.content, run.folder / TOKENIZER)
        else:
            run.adapted.save(folder, run.model)
            classifier.save_reading(folder, run.folder / TOKENIZER)
        (folder / "README.md").write_text(card, encoding="utf-8")

    write_sealed(run.folder / MODEL, write)


def _facts(run: Finished, rule: DecisionRule) -> dict[str, str]:
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    recipe = run.recipe
    return {
        "model": f"{recipe.model.base or recipe.model.size}, {parameters / 1e6:.1f}M parameters",
        "best step": f"{run.step}",
        "temperature": f"{rule.temperature:.3f}",
        "baseline": DESCRIPTION,
        "precision": recipe.train.precision,
        "processor": processor(),
    }
