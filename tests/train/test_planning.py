"""What a recipe asks of the order of its rows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from igla.errors import UserError
from igla.recipe import Recipe, load_recipe
from igla.terminal import plain_console
from igla.train.log import read_records
from igla.train.run import resume, train

Small = Callable[..., Recipe]
Killing = Callable[[Recipe, Path, int], None]


@pytest.fixture(scope="module")
def two_sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder, draw = tmp_path_factory.mktemp("texts"), np.random.default_rng(0)
    sizes = {"small": 60, "large": 600}
    for name, documents in sizes.items():
        texts = [" ".join(draw.choice(list("abcdefgh"), 12)) for _ in range(documents)]
        (folder / f"{name}.txt").write_text("\n\n".join(texts), encoding="utf-8")
    return {name: str(folder / f"{name}.txt") for name in sizes}


@pytest.fixture
def pretrain(two_sources: dict[str, str]) -> Small:
    return lambda *changes: load_recipe(
        None,
        [
            *("model.size=tiny", "model.layers=1", "model.hidden_size=16", "model.heads=1"),
            *("model.intermediate_size=16", "model.dropout=0", "text.max_length=16"),
            *("train.precision=float32", "train.batch_tokens=300", "train.steps=60"),
            *("corpus.validation_share=0.1", "corpus.similar=keep", "objective.task=masked_lm"),
            *("train.evaluations_per_epoch=2", *changes),
        ],
    ).replace(corpus__sources=two_sources)


def run(recipe: Recipe, folder: Path) -> list[dict[str, float]]:
    assert train(recipe, folder, plain_console(quiet=True)).finished
    return [record for record in read_records(folder) if record["kind"] == "evaluation"]


def shares_of(evaluations: list[dict[str, float]], name: str) -> list[float]:
    return [record[f"share_of_{name}"] for record in evaluations]


def test_sources_are_seen_in_the_shares_asked_for(pretrain: Small, tmp_path: Path) -> None:
    recipe = pretrain().replace(corpus__shares={"small": 3, "large": 1})
    shares = shares_of(run(recipe, tmp_path / "run"), "small")
    assert len(shares) > 2 and shares == pytest.approx([0.75] * len(shares), abs=0.01)


def test_shares_can_change_in_the_course_of_a_run(pretrain: Small, tmp_path: Path) -> None:
    recipe = pretrain().replace(corpus__shares={"small": (0, 1), "large": (1, 0)})
    shares = shares_of(run(recipe, tmp_path / "run"), "small")
    assert shares[0] < 0.25 and shares[-1] > 0.75 and shares == sorted(shares)


def test_temperature_raises_the_share_of_the_small(pretrain: Small, tmp_path: Path) -> None:
    shares = shares_of(run(pretrain("corpus.temperature=2"), tmp_path / "run"), "small")
    size = 0.1 / 1.1
    assert np.mean(shares) == pytest.approx(size**0.5 / (size**0.5 + (1 - size) ** 0.5), abs=0.02)


def test_a_mixed_run_is_resumed_bit_for_bit(
    pretrain: Small, tmp_path: Path, train_killed: Killing
) -> None:
    recipe = pretrain("curriculum.by=rarity", "train.steps=12", "train.save_steps=5")
    recipe = recipe.replace(corpus__shares={"small": (1, 2), "large": (1, 0)})
    run(recipe, tmp_path / "whole")

    train_killed(recipe, tmp_path / "killed", 8)
    assert resume(tmp_path / "killed", plain_console(quiet=True)).finished
    one, other = (
        (tmp_path / name / "model" / "model.safetensors").read_bytes()
        for name in ("whole", "killed")
    )
    assert one == other


@pytest.mark.parametrize(
    ("shares", "sentence"),
    [
        ({"small": 1}, "name each of them once"),
        ({"small": 1, "large": 1, "other": 1}, "name each of them once"),
        ({"small": (1, 2, 3), "large": (1, 2)}, "as many as the others"),
        ({"small": 0, "large": 0}, "all sources have the share 0"),
        ({"small": (1, 0), "large": (1, 0)}, "all sources have the share 0"),
    ],
)
def test_shares_that_make_no_sense_are_refused(
    shares: dict[str, object], sentence: str, pretrain: Small, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        run(pretrain().replace(corpus__shares=shares), tmp_path / "run")
    assert not (tmp_path / "run" / "tokenizer").exists()  # told before the texts are read


@pytest.mark.parametrize("by", ["length", "rarity"])
def test_easy_rows_come_first(by: str, small: Small, tmp_path: Path) -> None:
    run(small(f"curriculum.by={by}", "train.steps=12"), tmp_path / "run")
    log = (tmp_path / "run" / "train.log").read_text(encoding="utf-8")
    assert f"easy rows first, by {by}: all of them from step 6 on" in log
    tokens = [record["tokens"] for record in read_records(tmp_path / "run") if "tokens" in record]
    assert by != "length" or np.mean(tokens[:2]) < np.mean(tokens[6:])


def test_a_users_function_tells_what_is_easy(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "def shout(texts):\n    return [text.count('!') for text in texts]\n"
    (tmp_path / "loudness.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    run(small("curriculum.by=loudness:shout"), tmp_path / "run")
    assert "by loudness:shout" in (tmp_path / "run" / "train.log").read_text(encoding="utf-8")


def test_a_classifier_can_judge_what_is_easy(small: Small, tmp_path: Path) -> None:
    run(small(), tmp_path / "judge")
    judge = f"curriculum.judge={tmp_path / 'judge' / 'model'}"
    run(small("curriculum.by=loss", judge), tmp_path / "run")
    with pytest.raises(UserError, match=r"name curriculum\.judge"):
        run(small("curriculum.by=loss"), tmp_path / "other")


@pytest.mark.parametrize("by", ["lenght", "no.such:thing", "math:nothing", "math:pi:e", "math:pi"])
def test_what_is_no_function_is_refused(by: str, small: Small, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is none of none, length, rarity and loss"):
        run(small(f"curriculum.by={by}"), tmp_path / "run")
    assert not (tmp_path / "run" / "tokenizer").exists()  # told before the texts are read


@pytest.mark.parametrize("shares", ["{a: []}", "{a: [1, -2]}", "{a: .nan}", "{a: .inf}"])
def test_numbers_that_are_no_shares_are_refused(shares: str) -> None:
    with pytest.raises(UserError, match=r"corpus\.shares"):
        load_recipe(None, [f"corpus.shares={shares}"])


def test_a_step_too_small_for_the_sources_is_refused(pretrain: Small, tmp_path: Path) -> None:
    recipe = pretrain("train.batch_tokens=20").replace(corpus__shares={"small": 1, "large": 1})
    with pytest.raises(UserError, match=r"train\.batch_tokens must be 2\d at least"):
        run(recipe, tmp_path / "run")
    by_rows = pretrain("corpus.temperature=2").replace(
        train__batch_size=1, train__batch_tokens=None
    )
    with pytest.raises(UserError, match=r"train\.batch_size must be 2 at least"):
        run(by_rows, tmp_path / "other")
    assert not (tmp_path / "other" / "tokenizer").exists()  # told before the texts are read


@pytest.mark.parametrize("curriculum", ["none", "length"])
def test_a_dry_run_has_rows_of_each_source(
    curriculum: str, pretrain: Small, tmp_path: Path
) -> None:
    recipe = pretrain(f"curriculum.by={curriculum}", "train.batch_size=8")
    recipe = recipe.replace(corpus__shares={"small": 1, "large": 3})
    assert train(recipe, tmp_path / "run", plain_console(quiet=True), fast=True).finished


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["objective.mixup=0.4", "objective.r_drop=1"], "do not go together"),
        (["objective.r_drop=1", "model.dropout=0"], "by their dropout"),
        (
            ["objective.mixup=0.4", "train.micro_batch_size=1"],
            "of which a batch of one text has none",
        ),
        (["objective.loss=focal", "objective.label_smoothing=0.1"], "does nothing without another"),
        (["objective.focal_gamma=1"], "focal_gamma does nothing without objective.loss=focal"),
        (["objective.teacher_weight=0.4"], "does nothing without objective.teachers"),
        (["objective.adversary_reach=0.1"], "does nothing without objective.adversary"),
        (["corpus.temperature=2"], "does nothing for objective.task=classify"),
        (["curriculum.judge=x"], "does nothing without"),
        (["text.latin=russian"], "text.latin does nothing without text.guard"),
    ],
)
def test_settings_without_an_effect_are_refused(
    settings: list[str], sentence: str, small: Small, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        run(small(*settings), tmp_path / "run")


def test_a_function_that_gives_no_numbers_is_refused(small: Small, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finite number for each text"):
        run(small("curriculum.by=builtins:len"), tmp_path / "run")
    with pytest.raises(UserError, match="failed: ValueError"):
        run(small("curriculum.by=builtins:list"), tmp_path / "other")


def test_a_users_module_that_is_broken_is_told_with_its_fault(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "worn_out.py").write_text("weights = 1 / 0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="ZeroDivisionError: division by zero"):
        run(small("curriculum.by=worn_out:out"), tmp_path / "run")
