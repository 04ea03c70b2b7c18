"""Which words drive a score."""

from pathlib import Path

import httpx
import numpy as np
import pytest

from igla.infer.classifier import Classifier

TEXT = "😀 дом, человек глупый разговор"


def test_the_words_that_make_a_text_rude_are_found(server: str, trained: Path) -> None:
    found = httpx.post(f"{server}/igla/v1/explain", json={"text": TEXT}).json()
    classifier = Classifier.load(trained / "model")
    np.testing.assert_allclose(
        found["probabilities"], classifier.probabilities([TEXT])[0], atol=1e-6
    )
    assert found["classes"] == ["kind", "rude"]
    words = [TEXT[one["begin"] : one["end"]] for one in found["words"]]
    assert words == ["😀", "дом", ",", "человек", "глупый", "разговор"]
    rude = [one["effects"][1] for one in found["words"]]
    assert words[int(np.argmax(rude))] == "глупый" and max(rude) > 0.2


def test_an_effect_is_how_far_the_score_falls_when_the_word_is_hidden(
    server: str, trained: Path
) -> None:
    text, classifier = "глупый дом", Classifier.load(trained / "model")
    found = httpx.post(f"{server}/igla/v1/explain", json={"text": text}).json()
    hidden = classifier.probabilities(["[MASK] дом"])[0]
    whole = classifier.probabilities([text])[0]
    np.testing.assert_allclose(found["words"][0]["effects"], whole - hidden, atol=1e-6)


@pytest.mark.parametrize("text", ["", "\n", "слово " * 3000])
def test_of_any_text_what_is_read_is_explained(text: str, server: str) -> None:
    answer = httpx.post(f"{server}/igla/v1/explain", json={"text": text}, timeout=60)
    assert answer.status_code == 200
    assert len(answer.json()["words"]) <= 128


def test_a_model_that_is_not_there_is_said(server: str) -> None:
    answer = httpx.post(f"{server}/igla/v1/explain", json={"text": "дом", "model": "none"})
    assert answer.status_code == 404 and "none" in answer.json()["error"]


def test_what_is_served_is_listed(server: str) -> None:
    told = httpx.get(f"{server}/igla/v1/models").json()
    assert told["default"] == "default"
    (only,) = told["models"]
    assert only["classes"] == ["kind", "rude"] and only["grave"] == 1
