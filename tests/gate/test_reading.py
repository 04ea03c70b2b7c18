"""Versions are judged by the same readings of a text as decisions are made by: windows, guard."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from igla.gate.beginning import begin, block_cut, block_logits, block_scores
from igla.gate.comparison import compare
from igla.gate.home import Home
from igla.gate.judge import average_precision
from igla.gate.judging import calibrated, judged_by
from igla.gate.learner_settings import LearnerSettings
from igla.gate.log.records import now
from igla.gate.material import Material, Rows
from igla.gate.poison import Lesson
from igla.gate.policy import policy_of
from igla.gate.round import Learner
from igla.infer.classifier import Classifier

BLOCK = 1
KIND = [f"{word} дом {number}" for word in ("добрый", "милый", "славный") for number in range(6)]
RUDE = [f"{word} дом {number}" for word in ("глупый", "злой", "гадкий") for number in range(6)]
# Latin letters amid Russian ones.
EVASIVE = [f"глyпый злoй гaдkий мepзkий добрый дом {number}" for number in range(6)]
# Kind for as long as the model reads at once, and then rude.
LONG = " ".join(f"{word} дом " * 128 for word in ("добрый", "гадкий"))


@pytest.fixture(params=[False, True], ids=["as written", "guard"])
def guarded(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def asking(
    serve_gate: Callable[..., Any], run: Path, tmp_path: Path, guarded: bool
) -> Iterator[tuple[httpx.Client, Home]]:
    """A client of a server that learns, and the gate's folder."""
    config, home = tmp_path / "gate.yaml", Home(tmp_path / "gate")
    config.write_text(f"guard: {str(guarded).lower()}\n", encoding="utf-8")
    words = ["--log", f"sqlite:///{tmp_path}/gate.db", "--learn", str(home.folder)]
    with (
        serve_gate(str(run), *words, "--config", str(config)) as running,
        httpx.Client(base_url=running.address, timeout=30) as client,
    ):
        yield client, home


def test_versions_are_judged_by_the_probabilities_that_decisions_are_made_by(
    asking: tuple[httpx.Client, Home], guarded: bool
) -> None:
    client, home = asking
    classifier = Classifier.load(home.versions.path("v0001"))
    texts = ["добрый дом", "гадкий дом", EVASIVE[0], LONG]
    judged = block_scores(classifier, texts, BLOCK, guarded=guarded)
    decided = [
        1 - client.post("/v1/gate/decide", json={"text": text}).json()["probability"]
        for text in texts
    ]
    assert decided == pytest.approx(judged, abs=1e-3)
    at_once = classifier.probabilities(texts)[:, BLOCK]
    assert (judged > at_once + 0.1).tolist() == [False, False, guarded, True]


def test_the_learner_compares_versions_by_what_they_would_have_decided(
    asking: tuple[httpx.Client, Home], guarded: bool
) -> None:
    client, home = asking
    versions = home.versions
    classifier = Classifier.load(versions.path("v0001"))
    written, read = (
        float(block_scores(classifier, EVASIVE[:1], BLOCK, guarded=one)[0]) for one in (False, True)
    )
    assert read > written + 0.1

    def copy(folder: Path) -> None:
        """A version that allows the text as it is written, and blocks it as it is read."""
        leave = shutil.ignore_patterns("manifest.json")
        shutil.copytree(versions.path("v0001"), folder, ignore=leave, dirs_exist_ok=True)
        rule = json.loads((folder / "igla.json").read_text(encoding="utf-8"))
        rule["threshold"] = (written + read) / 2
        (folder / "igla.json").write_text(json.dumps(rule), encoding="utf-8")

    compare(home, versions.add(copy, versions.about("v0001")), 0.0)
    said = {"text": EVASIVE[0], "outcome": "confirmed_block", "who": "anna"}
    assert client.post("/v1/gate/feedback", json=said).status_code == 200
    end = time.monotonic() + 120
    while not (found := client.get("/v1/gate/versions").json()["learner"].get("comparison")) or (
        not found["decisions"]
    ):
        assert time.monotonic() < end, found
        time.sleep(0.1)
    assert found["both_right"] + found["only_second_right"] == int(guarded), found


@pytest.mark.parametrize("guarded", [False, True])
def test_a_gate_begins_is_calibrated_and_judges_by_the_servers_reading(
    learner: Learner, run: Path, tmp_path: Path, guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = [*RUDE, *EVASIVE[3:], LONG]
    allow = [*KIND, *EVASIVE[:3]]
    rows = Rows((*allow, *block), np.array([1] * len(allow) + [0] * len(block)))
    classifier = Classifier.load(learner.home.versions.path("v0001"))
    scores = block_scores(classifier, rows.texts, BLOCK, guarded=guarded)
    material = Material(learner.material.replay, rows, rows)

    with monkeypatch.context() as patched:
        patched.setattr("igla.gate.beginning.load_material", lambda folder: material)
        begun = begin(tmp_path / "other", run, BLOCK, guarded=guarded)
    [area] = average_precision(rows.targets == 0, scores, np.ones((1, len(rows))))
    rate = float((scores[rows.targets == 1] >= block_cut(classifier.rule, BLOCK)).mean())
    assert begun.versions.about("v0001").figures == {
        "holdout": {"after": float(area)},
        "false_positive_rate": rate,
    }

    judging = Learner(learner.home, material, BLOCK, LearnerSettings(), guarded)
    policy = policy_of(learner.home, learner.home.versions.about("v0001"))
    copy = calibrated(judging, classifier.rule, classifier, 0.0, policy)
    highest = block_scores(copy, allow, BLOCK, guarded=guarded).max()
    assert highest < block_cut(copy.rule, BLOCK) < highest + 0.5
    lessons = [
        Lesson(number, str(number), text, int(target), 1.0, frozenset({"anna"}), None, now(), False)
        for number, (text, target) in enumerate(zip(rows.texts, rows.targets, strict=True))
    ]
    _, verdict, _ = judged_by(judging, classifier, copy, lessons, policy)
    assert verdict.holdout is not None and verdict.recent is not None
    assert verdict.holdout.before == verdict.recent.before == pytest.approx(float(area))


def test_of_no_texts_there_are_no_scores(learner: Learner) -> None:
    classifier = Classifier.load(learner.home.versions.path("v0001"))
    assert block_scores(classifier, (), BLOCK, guarded=True).shape == (0,)
    assert block_logits(classifier, (), BLOCK).shape == (0, 2)
