"""scikit-learn's conventions, with scikit-learn's own machinery."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from igla import TextClassifier
from igla.errors import UserError

SETTINGS = {
    "model.layers": 1,
    "model.hidden_size": 32,
    "model.intermediate_size": 64,
    "model.heads": 2,
    "train.precision": "float32",
    "train.steps": 60,
}


def small(**parameters: Any) -> TextClassifier:
    defaults = {"learning_rate": 3e-3, "batch_size": 16, "random_state": 1, "settings": SETTINGS}
    return TextClassifier(**(defaults | parameters))


@pytest.fixture(scope="module")
def labelled(rows: Path) -> tuple[list[str], np.ndarray]:
    with rows.open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    return [row["text"] for row in table], np.array([row["label"] for row in table])


def test_fit_predict_score(labelled: tuple[list[str], np.ndarray]) -> None:
    texts, labels = labelled
    classifier = small().fit(texts, labels)
    assert classifier.classes_.tolist() == ["kind", "rude"]
    assert classifier.predict(["злой день", "милый день"]).tolist() == ["rude", "kind"]
    probabilities = classifier.predict_proba(texts)
    assert probabilities.shape == (96, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert classifier.score(texts, labels) > 0.9


def test_labels_of_any_type_come_back_as_they_were(
    labelled: tuple[list[str], np.ndarray],
) -> None:
    texts, labels = labelled
    numbers = np.where(labels == "rude", 10, -3)
    predicted = small().fit(texts, numbers).predict(texts)
    assert predicted.dtype == numbers.dtype and set(predicted) <= {10, -3}
    assert np.mean(predicted == numbers) > 0.9


def test_it_works_inside_cross_validation_and_a_pipeline() -> None:
    texts = [f"{('ЗЛОЙ', 'МИЛЫЙ')[index % 2]} дом {index // 2}" for index in range(160)]
    labels = np.arange(160) % 2
    lowered = make_pipeline(FunctionTransformer(lambda all: [one.lower() for one in all]), small())
    scores = cross_val_score(lowered, np.array(texts, dtype=object), labels, cv=2)
    assert scores.shape == (2,) and scores.min() > 0.8


def test_parameters_are_kept_as_given_and_cloned() -> None:
    classifier = small(epochs=2)
    assert classifier.get_params()["epochs"] == 2
    assert clone(classifier).get_params() == classifier.get_params()
    assert classifier.set_params(epochs=5).epochs == 5


def test_the_same_random_state_gives_the_same_probabilities(
    labelled: tuple[list[str], np.ndarray],
) -> None:
    texts, labels = labelled
    one, two = (small().fit(texts, labels).predict_proba(texts) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_weights_make_rows_count(labelled: tuple[list[str], np.ndarray]) -> None:
    texts, labels = labelled
    # The rude rows weigh next to nothing: what is learned is that all is kind.
    weights = np.where(labels == "rude", 1e-6, 1.0)
    classifier = small().fit(texts, labels, sample_weight=weights)
    raw = classifier.classifier_.logits(texts)
    assert (raw[:, 0] > raw[:, 1]).all()


def test_texts_with_two_labels_are_left_out_with_a_warning(
    labelled: tuple[list[str], np.ndarray],
) -> None:
    texts, labels = labelled
    with pytest.warns(UserWarning, match=r"dropped: 1 texts .* different labels"):
        small().fit([*texts, "одно", "одно"], np.array([*labels, "kind", "rude"]))


def test_a_run_is_kept_where_asked_and_loads_again(
    labelled: tuple[list[str], np.ndarray], tmp_path: Path
) -> None:
    texts, labels = labelled
    classifier = small(output=str(tmp_path / "run")).fit(texts, labels)
    loaded = TextClassifier.load(tmp_path / "run")
    assert (tmp_path / "run" / "report.html").is_file()
    np.testing.assert_allclose(
        loaded.predict_proba(texts), classifier.predict_proba(texts), atol=1e-7
    )


def test_wrong_input_is_named() -> None:
    with pytest.raises(NotFittedError):
        small().predict(["a"])
    with pytest.raises(ValueError, match="2 texts, but 1 labels"):
        small().fit(["a", "b"], [1])
    with pytest.raises(UserError, match="Row 1 is no text but 5"):
        small().fit(["a", 5], [0, 1])
    with pytest.raises(ValueError, match="a list of texts, not one text"):
        small().fit("text", [0])
    with pytest.raises(UserError, match="at least two"):
        small().fit([f"text {index}" for index in range(9)], [1] * 9)


def test_ctrl_c_ends_fitting_as_it_ends_other_code(
    labelled: tuple[list[str], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("igla.train.interrupt.Interrupts.asked", True)
    with pytest.raises(KeyboardInterrupt):
        small().fit(*labelled)
