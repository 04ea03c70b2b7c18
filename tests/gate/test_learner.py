"""A round of learning: what it teaches, what it keeps, and how it goes on after a crash."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from igla.errors import UserError
from igla.gate import learner as module
from igla.gate.beginning import begin, block_scores
from igla.gate.judge import average_precision
from igla.gate.learner import run_round
from igla.gate.learner_settings import LearnerSettings, Learning
from igla.gate.learning import assemble, divide
from igla.gate.log.records import Feedback
from igla.gate.material import Rows
from igla.gate.policy import Policy, policy_of
from igla.gate.round import Learner, close_round, open_learner, open_round, round_at_work
from igla.infer.classifier import Classifier
from igla.train.loop import Step

BLOCK = 1
NONE = np.array([], dtype=np.int64)
Slang = Callable[..., list[Feedback]]
QUICK = Learning(learning_rate=5e-3, epochs=5, elasticity=100.0, fisher_rows=64)


def with_learning(learner: Learner, **changes: Any) -> Learner:
    learning = QUICK.model_copy(update=changes)
    return replace(learner, settings=learner.settings.model_copy(update={"learning": learning}))


def with_trust(learner: Learner, **changes: Any) -> Learner:
    trust = learner.settings.trust.model_copy(update=changes)
    return replace(learner, settings=learner.settings.model_copy(update={"trust": trust}))


def learned(learner: Learner, feedback: list[Feedback]) -> Any:
    learner = with_learning(learner)
    ended = run_round(learner, open_round(learner, feedback[-1].seq, "by hand"), feedback)
    close_round(learner.home)
    return ended


def pr_auc(learner: Learner, name: str, feedback: list[Feedback]) -> float:
    rows = Rows(
        tuple(one.text or "" for one in feedback), np.array([one.target for one in feedback])
    )
    scores = block_scores(
        Classifier.load(learner.home.versions.path(name)), rows.texts, learner.block
    )
    return float(average_precision(rows.targets == 0, scores, np.ones((1, len(rows))))[0])


def test_a_copy_that_has_learned_new_words_takes_over(learner: Learner, slang: Slang) -> None:
    feedback = slang(240)
    ended = learned(learner, feedback)
    assert ended.passed and ended.serves, ended.reason
    assert ended.reason.startswith("passed: PR-AUC on the holdout")
    serving = learner.home.versions.serving()
    assert (serving.name, serving.by) == (ended.version, "learner")
    unseen = slang(200, seed=1)
    assert pr_auc(learner, "v0002", unseen) > pr_auc(learner, "v0001", unseen) + 0.1
    about = learner.home.versions.about("v0002")
    assert about.parent == "v0001" and about.lessons == feedback[-1].seq
    assert about.figures["learned"] + about.figures["judged"] == len(feedback)
    assert round_at_work(learner.home) is None


def test_what_a_round_learns_from_is_never_what_it_is_judged_by(
    learner: Learner, slang: Slang
) -> None:
    feedback = slang(300)
    lessons = learner.sift(feedback, Policy()).lessons
    measured = learner.material.holdout.contexts
    learned, judged = divide(lessons, learner.settings.learning, measured)
    assert 30 < len(judged) < 100 and len(learned) + len(judged) == 300
    assert (
        divide(lessons[:50], learner.settings.learning, measured)[1]
        == judged[: len(judged)][: sum(one.seq <= 50 for one in judged)]
    )
    lot = assemble(learned, learner.material.replay, NONE, learner.settings.learning, 100, 3)
    assert not {one.text for one in judged} & set(lot.texts)
    assert not set(learner.material.holdout.texts) & set(lot.texts)
    assert lot.new == sum(one.seq > 100 for one in learned)
    assert len(lot.texts) == 3 * lot.new
    assert {lesson.text for lesson in learned if lesson.seq <= 100} & set(lot.texts[lot.new :])


def test_what_is_in_the_holdout_is_not_learned_even_if_somebody_says_it(
    learner: Learner, give: Callable[..., Feedback]
) -> None:
    said = [give(text, "confirmed_block") for text in learner.material.holdout.texts[:50]]
    ended = learned(learner, said)
    assert ended.version is None and "nothing new" in ended.reason
    assert learner.home.versions.names() == ["v0001"] and round_at_work(learner.home) is None


def test_flipped_feedback_is_kept_as_rejected_with_the_reason(learner: Learner, give: Any) -> None:
    """Comments in old words, of which the holdout knows better."""
    said = []
    for number, (text, target) in enumerate(
        zip(learner.material.replay.texts, learner.material.replay.targets, strict=True)
    ):
        outcome = "override_block" if target else "override_allow"
        said.append(give(f"{text} и ещё {number}", outcome, minutes=number))
    loose = with_trust(learner, neighbours=10_000)
    ended = learned(loose, said)
    assert not ended.passed and ended.reason.startswith("rejected: PR-AUC on the holdout")
    versions = learner.home.versions
    assert versions.serving().name == "v0001" and versions.names() == ["v0001", "v0002"]
    assert not versions.about("v0002").passed and versions.about("v0002").reason == ended.reason


def test_a_policy_that_has_changed_is_noticed_learned_and_judged_by(
    learner: Learner, give: Any
) -> None:
    """One word of six is rude no longer."""
    material, word = learner.material, "тупой"
    said = []
    for number, text in enumerate(material.replay.texts):
        kind = material.replay.targets[number] or word in text
        outcome, who = f"confirmed_{'allow' if kind else 'block'}", ("anna", "boris")[number % 2]
        decision = f"d_{number}"
        said.append(give(f"{text} и", outcome, who, minutes=number, decision=decision))
    ended = learned(learner, said)
    assert ended.passed, ended.reason
    [found] = ended.figures["reversals"]
    assert (found["words"], found["target"], found["voices"]) == ((word,), 1, 2)
    for part, count in (("holdout", "outdated"), ("replay", "anew")):
        texts = vars(material)[part].texts
        assert ended.figures[count] == sum(word in text for text in texts) > 0
    assert "rows of the holdout are of an older policy" in ended.reason
    # What the serving version has learned of is known from then on.
    about = learner.home.versions.about("v0002")
    [known] = policy_of(learner.home, about).reversals
    assert known.words == (word,)


def test_a_round_that_was_killed_goes_on_and_ends_as_it_would_have(
    learner: Learner, slang: Slang, run: Path, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def die(step: Step) -> None:
        if step.step == 7:
            raise Killed

    feedback = slang(240)
    other = begin(tmp_path / "other", run, BLOCK)
    whole = with_learning(open_learner(other, BLOCK, LearnerSettings()))
    cut = with_learning(learner, save_seconds=1e-9)
    run_round(whole, open_round(whole, feedback[-1].seq, "count"), feedback)
    at_work = open_round(cut, feedback[-1].seq, "count")
    with pytest.raises(Killed):
        run_round(cut, at_work, feedback, die)
    seen: list[int] = []
    again = round_at_work(cut.home)
    assert again == at_work
    run_round(cut, again, feedback, lambda step: seen.append(step.step))
    assert seen[0] == 8  # step 7 was saved before it was told of
    for file in ("model.safetensors", "optimizer.safetensors"):
        one, two = (load_file(home.versions.path("v0002") / file) for home in (learner.home, other))
        assert one.keys() == two.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])


def test_a_round_that_was_killed_after_its_seal_seals_nothing_twice(
    learner: Learner, slang: Slang, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = with_learning(learner)
    feedback = slang(240)
    at_work = open_round(learner, feedback[-1].seq, "count")
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(module, "_settled", lambda *rest: 1 / 0)
        run_round(learner, at_work, feedback)
    assert learner.home.versions.serving().name == "v0001"
    ended = run_round(learner, at_work, feedback)
    assert ended.version == "v0002" and ended.serves
    assert learner.home.versions.names() == ["v0001", "v0002"]


def test_feedback_that_was_erased_meanwhile_is_not_learned_from(
    learner: Learner, slang: Slang
) -> None:
    class Killed(Exception):
        pass

    def die(step: Step) -> None:
        raise Killed

    feedback = slang(240)
    learner = with_learning(learner, save_seconds=1e-9)
    at_work = open_round(learner, feedback[-1].seq, "count")
    with pytest.raises(Killed):
        run_round(learner, at_work, feedback, die)
    seen: list[int] = []
    ended = run_round(learner, at_work, feedback[:-20], lambda step: seen.append(step.step))
    assert seen[0] == 1 and ended.version == "v0002"


def test_a_rollback_while_a_copy_trains_stands(learner: Learner, slang: Slang) -> None:
    learned(learner, slang(240))
    assert learner.home.versions.serving().name == "v0002"
    feedback = slang(240, seed=2)
    at_work = open_round(with_learning(learner), feedback[-1].seq, "count")
    learner.home.versions.rollback("a hand")
    ended = run_round(with_learning(learner), at_work, feedback)
    assert not ended.serves and learner.home.versions.serving().name == "v0001"


def test_a_gate_needs_rows_to_judge_by(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run"):
        begin(tmp_path / "gate", trained / "model", BLOCK)


def test_a_gate_whose_rows_were_changed_does_not_open(learner: Learner) -> None:
    file = learner.home.rows / "holdout.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match="not as they were taken"):
        open_learner(learner.home, BLOCK, LearnerSettings())
