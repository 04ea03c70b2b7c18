"""The report's plots, as SVG that takes its colours from the page."""

import io
import math
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from igla.evaluate.calibration import Reliability
from igla.evaluate.measurement import Measurement
from igla.evaluate.metrics import FALSE_POSITIVES

# Stand-ins that the page's own colours replace, so that one page serves light and dark screens.
INK, FAINT, MODEL, OTHER = "#010203", "#040506", "#070809", "#0a0b0c"
_ON_THE_PAGE = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    MODEL: "var(--model)",
    OTHER: "var(--other)",
}
# More curves than this no eye tells apart.
MOST_CURVES = 10
SIZE = (4.6, 3.2)
# Points of a curve that a plot of this size can show.
POINTS = 400


def loss_curves(records: list[dict[str, Any]]) -> str:
    """Training loss (each step faint, smoothed) and validation loss by step."""
    steps = [record for record in records if record["kind"] == "step"]
    checks = [record for record in records if record["kind"] == "evaluation"]
    figure, axes = _axes("step", "loss")
    at, losses = _thinned([record["step"] for record in steps], [r["loss"] for r in steps])
    axes.plot(at, losses, color=FAINT, linewidth=0.8)
    axes.plot(at, _smoothed(losses), color=MODEL, label="training")
    axes.plot(
        [record["step"] for record in checks],
        [record["validation_loss"] for record in checks],
        color=OTHER,
        marker="o",
        label="validation",
    )
    _legend(axes)
    return _svg(figure)


def learning_rate(records: list[dict[str, Any]]) -> str:
    """Learning rate by step."""
    steps = [record for record in records if record["kind"] == "step"]
    figure, axes = _axes("step", "learning rate")
    axes.plot(
        *_thinned([r["step"] for r in steps], [r["learning_rate"] for r in steps]), color=MODEL
    )
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    return _svg(figure)


def precision_recall(measurements: list[Measurement]) -> str:
    """Precision against recall, a curve a question of the first, and one curve of each other."""
    figure, axes = _axes("recall", "precision")
    for ones, scores, style in _questions(measurements):
        precision, recall, _ = precision_recall_curve(ones, scores)
        axes.plot(*_thinned(recall, precision), **style)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    _legend(axes)
    return _svg(figure)


def receiver_operating(measurements: list[Measurement]) -> str:
    """True against false positives, with the line at 1 % false positives."""
    figure, axes = _axes("false positives", "true positives (recall)")
    axes.axvline(FALSE_POSITIVES, color=FAINT, linewidth=0.8, linestyle=":")
    for ones, scores, style in _questions(measurements):
        false_positives, recall, _ = roc_curve(ones, scores)
        axes.plot(*_thinned(false_positives, recall), **style)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    _legend(axes)
    return _svg(figure)


def reliabilities(before: Reliability, after: Reliability) -> str:
    """How often predictions of each confidence are right, before and after calibration."""
    figure, axes = _axes("confidence", "share that is right")
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8)
    for found, color, name in ((before, OTHER, "before"), (after, MODEL, "after")):
        filled = found.counts > 0
        label = f"{name} temperature scaling, ECE {found.error:.3f}"
        axes.plot(
            found.confidence[filled], found.accuracy[filled], color=color, marker="o", label=label
        )
    lowest = min(found.confidence[found.counts > 0].min() for found in (before, after))
    axes.set(xlim=(lowest - 0.03, 1.02), ylim=(-0.02, 1.02))
    _legend(axes)
    return _svg(figure)


def score_histogram(measurement: Measurement) -> str:
    """The scores of the first question's rows that are so, and of those that are not."""
    ones, scores = measurement.scored.columns[0]
    names = measurement.scored.classes
    positive = names[1] if len(measurement.scored.columns) == 1 else names[0]
    figure, axes = _axes(f"score of «{positive}»", "rows")
    bins = np.linspace(0, 1, 41).tolist()
    axes.hist(scores[ones == 0], bins=bins, color=FAINT, label=f"not «{positive}»")
    axes.hist(scores[ones == 1], bins=bins, color=MODEL, alpha=0.75, label=f"«{positive}»")
    threshold = measurement.threshold
    first = threshold[0] if isinstance(threshold, tuple) else threshold
    if first is not None:
        axes.axvline(first, color=OTHER, linestyle="--", label=f"threshold {first:.2f}")
    _legend(axes)
    return _svg(figure)


def _questions(measurements: list[Measurement]) -> Any:
    """Labels, scores and line style of each curve that is to be drawn."""
    model, *others = measurements
    columns = model.scored.columns
    defined = [
        (index, ones, scores)
        for index, (ones, scores) in enumerate(columns)
        if 0 < ones.sum() < len(ones)
    ]
    if len(columns) == 1:
        for one, color in zip([model, *others], (MODEL, OTHER), strict=False):
            for ones, scores in one.scored.columns:
                if 0 < ones.sum() < len(ones):
                    yield ones, scores, {"color": color, "label": one.name}
        return
    for index, ones, scores in defined[:MOST_CURVES]:
        yield ones, scores, {"color": f"C{index}", "label": model.scored.classes[index]}


def _axes(across: str, up: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(across, color=INK)
    axes.set_ylabel(up, color=INK)
    axes.tick_params(colors=INK, which="both")
    axes.grid(color=FAINT, linewidth=0.4)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_color(INK)
        spine.set_visible(side in ("left", "bottom"))
    return figure, axes


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, labelcolor=INK, fontsize=8)


def _thinned(across: Any, up: Any) -> tuple[np.ndarray, np.ndarray]:
    """At most POINTS points of a line, the ends among them."""
    across, up = np.asarray(across, dtype=float), np.asarray(up, dtype=float)
    if len(across) <= POINTS:
        return across, up
    kept = np.linspace(0, len(across) - 1, POINTS).round().astype(int)
    return across[kept], up[kept]


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Mean over a tenth of the line around each point."""
    width = max(1, math.ceil(len(values) / 10)) | 1
    sums = np.convolve(values, np.ones(width), mode="same")
    return sums / np.convolve(np.ones(len(values)), np.ones(width), mode="same")


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    # Text stays text, and ids the same from run to run.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "igla"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    for stand_in, color in _ON_THE_PAGE.items():
        drawing = drawing.replace(stand_in, color)
    return drawing
