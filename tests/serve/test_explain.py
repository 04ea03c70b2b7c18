"""Which words drive a score."""

import asyncio
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from igla.data.batch import pack
from igla.infer.classifier import Classifier, DecisionRule
from igla.model.config import named_config
from igla.model.encoder import SequenceClassifier
from igla.model.ngrams import spell
from igla.serve.engine import Engine
from igla.serve.explain import Explanation, Method, explain, words_of
from igla.serve.models import Served

TEXT = "😀 дом, человек глупый разговор"


@pytest.mark.parametrize("method", ["occlusion", "gradients"])
def test_the_words_that_make_a_text_rude_are_found(method: str, server: str, trained: Path) -> None:
    asked = {"text": TEXT, "method": method}
    found = httpx.post(f"{server}/igla/v1/explain", json=asked).json()
    classifier = Classifier.load(trained / "model")
    np.testing.assert_allclose(
        found["probabilities"], classifier.probabilities([TEXT])[0], atol=1e-6
    )
    assert found["classes"] == ["kind", "rude"]
    words = [TEXT[one["begin"] : one["end"]] for one in found["words"]]
    assert words == ["😀", "дом", ",", "человек", "глупый", "разговор"]
    rude = [one["effects"][1] for one in found["words"]]
    assert words[int(np.argmax(rude))] == "глупый"
    # Gradients share out the difference to a text of masks, which may be as rude.
    assert method == "gradients" or max(rude) > 0.2


def test_an_effect_is_how_far_the_score_falls_when_the_word_is_hidden(
    server: str, trained: Path
) -> None:
    text, classifier = "глупый дом", Classifier.load(trained / "model")
    asked = {"text": text, "method": "occlusion"}
    found = httpx.post(f"{server}/igla/v1/explain", json=asked).json()
    hidden = classifier.probabilities(["[MASK] дом"])[0]
    whole = classifier.probabilities([text])[0]
    np.testing.assert_allclose(found["words"][0]["effects"], whole - hidden, atol=1e-6)


@pytest.mark.parametrize(("classes", "ngrams"), [(2, 0), (3, 0), (2, 64)])
@pytest.mark.parametrize("multi_label", [False, True])
def test_integrated_gradients_are_the_integral_of_the_slopes(
    classes: int, ngrams: int, multi_label: bool, trained: Path
) -> None:
    """And so they sum to the difference between the text and the hidden text."""
    encoder = Classifier.load(trained / "model").encoder
    sizes = {"vocab_size": encoder.vocab_size, "max_positions": 64, "ngrams": ngrams}
    torch.manual_seed(0)
    model = SequenceClassifier(named_config("tiny", **sizes), classes)
    if ngrams:
        spell(model, encoder.tokenizer)
        torch.nn.init.normal_(model.encoder.embeddings.ngrams.table.weight, std=0.1)
    names = tuple("abc"[:classes])
    classifier = Classifier(model, encoder, DecisionRule(names, multi_label, temperature=0.7))
    with torch.no_grad():  # steep, so that one slope alone would be far off
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(3)
    served = Served("a", "1", trained, classifier)
    found = asyncio.run(explained(served, "глупый гадкий дом", "gradients"))
    words = words_of(encoder, "глупый гадкий дом")
    hidden = words.ids.copy()
    hidden[1:-1] = encoder.mask_token_id
    with torch.no_grad():
        logits = model(pack([words.ids, hidden])).double().numpy()
    whole, nothing = classifier.rule.probabilities(logits)
    np.testing.assert_allclose(found.probabilities, whole, atol=1e-6)
    assert np.abs(whole - nothing).max() > 0.02
    np.testing.assert_allclose(found.effects.sum(axis=0), whole - nothing, atol=2e-3)


async def explained(served: Served, text: str, method: Method) -> Explanation:
    engine = Engine(10_000, lambda done: None)
    engine.start()
    found = await explain(engine, served, text, method)
    await engine.close()
    return found


@pytest.mark.parametrize("method", ["occlusion", "gradients"])
@pytest.mark.parametrize("text", ["", "\n", "слово " * 3000])
def test_of_any_text_what_is_read_is_explained(text: str, method: str, server: str) -> None:
    asked = {"text": text, "method": method}
    answer = httpx.post(f"{server}/igla/v1/explain", json=asked, timeout=60)
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
