"""Allow, review or block."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from igla.infer.classifier import Classifier
from igla.serve.decisions import cuts_of, gravest, verdicts
from igla.serve.settings import Settings


def model(classes: tuple[str, ...], threshold: Any) -> Any:
    rule = SimpleNamespace(classes=classes, threshold=threshold)
    return SimpleNamespace(classes=classes, classifier=SimpleNamespace(rule=rule))


@pytest.mark.parametrize(
    ("classes", "threshold", "asked", "cuts"),
    [
        (("kind", "rude"), 0.4, {}, {1: (0.4, 0.9)}),
        (("toxic", "fine"), 0.4, {}, {0: (0.6, 0.9)}),
        (("a", "b", "c"), None, {}, {2: (0.5, 0.9)}),
        (("kind", "rude"), 0.4, {"rude": {"review": 0.2, "block": 0.5}}, {1: (0.2, 0.5)}),
        (("spam", "rude"), (0.3, 0.7), {"spam": {}, "rude": {}}, {0: (0.3, 0.9), 1: (0.7, 0.9)}),
    ],
)
def test_the_cuts_are_the_settings_or_the_models(
    classes: tuple[str, ...], threshold: Any, asked: dict[str, Any], cuts: dict[int, Any]
) -> None:
    settings = Settings.model_validate({"decisions": asked})
    found = cuts_of(settings, model(classes, threshold))
    assert found.keys() == cuts.keys()
    for column, cut in cuts.items():
        assert found[column] == pytest.approx(cut)


@pytest.mark.parametrize(
    ("probabilities", "each", "whole"),
    [
        ([0.1, 0.1], ["allow", "allow"], "allow"),
        ([0.3, 0.1], ["review", "allow"], "review"),
        ([0.3, 0.9], ["review", "block"], "block"),
    ],
)
def test_a_text_calls_for_what_its_gravest_class_calls_for(
    probabilities: list[float], each: list[str], whole: str
) -> None:
    found = verdicts({0: (0.3, 0.9), 1: (0.5, 0.9)}, np.array(probabilities))
    assert [*found.values()] == each
    assert gravest(found) == whole


def test_a_long_text_has_its_gravest_window_and_their_mean(server: str, trained: Path) -> None:
    rude, kind = "глупый гадкий мерзкий дом " * 20, "добрый дом " * 200
    asked = {"texts": [kind + rude, "добрый дом"]}
    answer = httpx.post(f"{server}/igla/v1/score", json=asked, timeout=30).json()
    long, short = answer["results"]
    assert long["windows"] > 1 and short["windows"] == 1
    _, label = long["labels"]
    assert label["mean"] < label["probability"] and label["decision"] in ("review", "block")
    assert long["decision"] == label["decision"] and short["decision"] == "allow"
    expected = Classifier.load(trained / "model").probabilities(["добрый дом"])[0]
    assert [one["mean"] for one in short["labels"]] == pytest.approx(expected, abs=1e-6)


def test_evasive_spellings_are_scored_as_written_and_as_read(
    serve: Callable[..., Any], trained: Path, tmp_path: Path
) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("guard: true\n", encoding="utf-8")
    texts = ["глу%пый гaдкий мер_зкий", "глупый гадкий мерзкий", "добрый дом"]
    classifier = Classifier.load(trained / "model")
    written, read, kind = classifier.probabilities(texts)[:, 1]
    assert read > written + 0.01
    with serve(str(trained), "--config", str(config)) as running:
        answer = httpx.post(f"{running.address}/igla/v1/score", json={"texts": texts}).json()
    found = [one["labels"][1] for one in answer["results"]]
    assert [one["windows"] for one in answer["results"]] == [2, 1, 1]
    assert [one["probability"] for one in found] == pytest.approx([read, read, kind], abs=1e-3)
    assert found[0]["mean"] == pytest.approx((written + read) / 2, abs=1e-3)


def test_the_settings_decide(serve: Callable[..., Any], trained: Path, tmp_path: Path) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("decisions: {rude: {review: 0.0, block: 0.0}}\n", encoding="utf-8")
    with serve(str(trained), "--config", str(config)) as running:
        asked = {"texts": ["добрый дом"]}
        answer = httpx.post(f"{running.address}/igla/v1/score", json=asked).json()
    assert answer["results"][0]["decision"] == "block"
