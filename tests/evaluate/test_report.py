"""What a person reads of a run."""

import re
from typing import Any

import numpy as np
import pytest
import yaml

from igla.evaluate.calibration import reliability
from igla.evaluate.card import render_card
from igla.evaluate.measurement import Measurement, differences, table_lines, verdict
from igla.evaluate.metrics import Scored
from igla.evaluate.report import render_report, slices_by_length, worst_mistakes


def measured(name: str, noise: float, rows: int = 200) -> Measurement:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, rows)
    positive = np.clip(0.25 + 0.5 * labels + noise * random.normal(size=rows), 0.01, 0.99)
    return Measurement(
        name, Scored(("a", "<b>"), labels, np.stack([1 - positive, positive], 1), False), 0.5
    )


GOOD, BAD = measured("good", 0.1), measured("bad", 0.6)
RECORDS: list[dict[str, Any]] = [
    {"kind": "step", "step": step, "loss": 1 / step, "learning_rate": 1e-3} for step in (1, 2, 3)
] + [{"kind": "evaluation", "step": 3, "validation_loss": 0.5}]


def page(model: Measurement, texts: list[str]) -> str:
    found = reliability(model.scored.probabilities, model.scored.labels)
    return render_report(
        name="run",
        part="test",
        model=model,
        baseline=BAD,
        uncalibrated=found,
        calibrated=found,
        texts=texts,
        lengths=np.full(len(texts), 20),
        records=RECORDS,
        decisions=["200 rows read"],
        facts={"processor": "one"},
        recipe="train:",
    )


def test_texts_and_labels_are_shown_as_text_and_not_run_as_a_page() -> None:
    found = page(BAD, ["<script>alert('x')</script>"] * 200)
    assert "<script>" not in found and "&lt;script&gt;" in found
    assert "&lt;b&gt;" in found


def test_a_perfect_model_has_a_page_too() -> None:
    found = page(measured("perfect", 0.0), ["text"] * 200)
    assert "None of these rows was called wrongly" in found
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", found, flags=re.DOTALL)


def test_the_worst_mistakes_are_the_surest() -> None:
    texts = [f"text {row}" for row in range(200)]
    mistakes = worst_mistakes(BAD, texts)
    sure = [mistake.confidence for mistake in mistakes]
    assert len(mistakes) == 20 and sure == sorted(sure, reverse=True)
    called = BAD.scored.probabilities.argmax(axis=1)
    wrong = np.flatnonzero(called != BAD.scored.labels)
    assert sure[0] == BAD.scored.probabilities[wrong, called[wrong]].max()
    assert all(mistake.label != mistake.called for mistake in mistakes)


def test_of_several_labels_each_wrong_yes_or_no_is_a_mistake() -> None:
    scored = Scored(("x", "y"), np.array([[1, 0]]), np.array([[0.2, 0.9]]), True)
    mistakes = worst_mistakes(Measurement("m", scored, (0.5, 0.5)), ["text"])
    assert [(one.label, one.called) for one in mistakes] == [("not y", "y"), ("x", "not x")]


def test_slices_hold_each_row_once() -> None:
    lengths = np.random.default_rng(1).integers(3, 129, 200)
    slices = slices_by_length(GOOD, lengths)
    assert [one.name for one in slices] == [
        "1–16 tokens",
        "17–32 tokens",
        "33–64 tokens",
        "65–128 tokens",
    ]
    assert sum(one.rows for one in slices) == 200
    accuracy = sum(one.rows * one.accuracy for one in slices) / 200
    assert np.isclose(accuracy, GOOD.figures["accuracy"])


def test_the_verdict_follows_the_paired_intervals() -> None:
    assert verdict(GOOD, BAD).startswith("good is better than bad: macro-F1 +0.")
    assert verdict(BAD, GOOD).startswith("bad is worse than good: macro-F1 -0.")
    assert "not clearly" in verdict(GOOD, GOOD)
    found = differences(GOOD, BAD)["accuracy"]
    assert found.low < found.value < found.high
    assert found.value == GOOD.figures["accuracy"] - BAD.figures["accuracy"]


def test_the_table_is_aligned_and_whole() -> None:
    head, *body = table_lines([GOOD, BAD])
    assert head.split() == ["good", "bad"] and len(body) == 7
    assert len({line.index("[") for line in body}) == 1


@pytest.mark.parametrize("elsewhere", [True, False])
def test_the_card_opens_with_the_figures_as_data(elsewhere: bool) -> None:
    text = render_card(
        name="run",
        base=None,
        part="test",
        model=GOOD,
        baseline=BAD,
        temperature=1.25,
        elsewhere=elsewhere,
        max_length=128,
        decisions=["200 rows read"],
    )
    data = yaml.safe_load(text.split("---")[1])
    metrics = {one["type"]: one["value"] for one in data["model-index"][0]["results"][0]["metrics"]}
    assert metrics["macro_f1"] == round(GOOD.figures["macro_f1"], 4)
    assert data["library_name"] == ("transformers" if elsewhere else "igla")
    assert ("AutoModelForSequenceClassification" in text) is elsewhere
    assert "from scratch" in text and "| macro-F1 |" in text and "temperature (1.250)" in text
    assert re.search(r"\n{3,}", text.split("---", 2)[2].strip()) is None
