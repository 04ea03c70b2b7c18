"""report.html: one page that shows a run, complete in itself."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from igla.evaluate import plots
from igla.evaluate.calibration import Reliability
from igla.evaluate.decision import decide
from igla.evaluate.measurement import TITLES, Measurement, differences, verdict
from igla.evaluate.metrics import headline

WORST = 20
LONGEST_TEXT = 400
# Upper ends, in tokens, of the slices by length.
LENGTHS = (16, 32, 64, 128, 256, 512)


@dataclass(frozen=True)
class Mistake:
    """A row that was called wrongly, with the probability of what it was called."""

    text: str
    label: str
    called: str
    confidence: float


@dataclass(frozen=True)
class Slice:
    """The rows of some lengths."""

    name: str
    rows: int
    accuracy: float
    macro_f1: float


def render_report(
    *,
    name: str,
    part: str,
    model: Measurement,
    baseline: Measurement | None,
    uncalibrated: Reliability,
    calibrated: Reliability,
    texts: list[str],
    lengths: np.ndarray,
    records: list[dict[str, Any]],
    decisions: list[str],
    facts: dict[str, str],
    recipe: str,
) -> str:
    """The page.

    part       name of the rows that were measured
    texts      [N] of these rows; lengths [N] in tokens
    records    of metrics.jsonl
    decisions  what was done with the data
    facts      what else is to be known of the run, by name
    """
    environment = Environment(
        loader=PackageLoader("igla.evaluate"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    measured = [model] if baseline is None else [model, baseline]
    return environment.get_template("report.html.j2").render(
        name=name,
        part=part,
        model=model,
        measured=measured,
        titles=TITLES,
        differences=None if baseline is None else differences(model, baseline),
        verdict=None if baseline is None else verdict(model, baseline),
        plots={
            "Loss": plots.loss_curves(records),
            "Learning rate": plots.learning_rate(records),
            "Precision and recall": plots.precision_recall(measured),
            "ROC": plots.receiver_operating(measured),
            "Reliability": plots.reliabilities(uncalibrated, calibrated),
            "Scores": plots.score_histogram(model),
        },
        mistakes=worst_mistakes(model, texts),
        slices=slices_by_length(model, lengths),
        decisions=decisions,
        facts=facts,
        recipe=recipe,
    )


def worst_mistakes(model: Measurement, texts: list[str]) -> list[Mistake]:
    """The wrongly called rows that the model was surest of."""
    scored = model.scored
    called = decide(scored.probabilities, scored.multi_label, model.threshold)
    mistakes = []
    if scored.multi_label:
        confidence = np.where(called == 1, scored.probabilities, 1 - scored.probabilities)
        for row, column in np.argwhere(called != scored.labels):
            name = scored.classes[column]
            label, other = (
                (name, f"not {name}") if scored.labels[row, column] else (f"not {name}", name)
            )
            mistakes.append(Mistake(_short(texts[row]), label, other, confidence[row, column]))
    else:
        for row in np.flatnonzero(called != scored.labels):
            label, other = scored.classes[scored.labels[row]], scored.classes[called[row]]
            sure = scored.probabilities[row, called[row]]
            mistakes.append(Mistake(_short(texts[row]), label, other, sure))
    return sorted(mistakes, key=lambda mistake: -mistake.confidence)[:WORST]


def slices_by_length(model: Measurement, lengths: np.ndarray) -> list[Slice]:
    """How good the model is on short and on long texts."""
    slices, lower = [], 0
    for upper in LENGTHS:
        rows = np.flatnonzero((lengths > lower) & (lengths <= upper))
        if len(rows):
            figures = headline(model.scored.take(rows), model.threshold)
            slices.append(
                Slice(
                    f"{lower + 1}–{upper} tokens",
                    len(rows),
                    figures["accuracy"],
                    figures["macro_f1"],
                )
            )
        lower = upper
    return slices


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
