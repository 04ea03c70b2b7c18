"""The switches that keep a model from learning its rows by heart, in whole runs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from igla.errors import UserError
from igla.recipe import Recipe
from igla.terminal import plain_console
from igla.train.log import read_records
from igla.train.run import resume, train

Small = Callable[..., Recipe]
Killing = Callable[[Recipe, Path, int], None]
QUIET = plain_console(quiet=True)
SWITCHES = {
    "evasion": ["text.evasion=0.5", "text.guard=true"],
    "word dropout": ["objective.word_dropout=0.2"],
    "R-Drop": ["objective.r_drop=1.0", "model.dropout=0.1"],
    "mixup": ["objective.mixup=0.5"],
    "FGM": ["objective.adversary=fgm"],
    "PGD": ["objective.adversary=pgd", "objective.adversary_reach=0.2"],
    "teacher": ["objective.teachers=[TEACHER]", "objective.teacher_temperature=2"],
    "the baseline": ["objective.teachers=[baseline]", "objective.teacher_weight=0.4"],
    "n-grams of letters": ["model.ngrams=1024"],
    "n-grams beside a moving average": ["model.ngrams=1024", "optim.ema=0.9"],
    "all": [
        *("text.evasion=0.3", "objective.word_dropout=0.1", "objective.mixup=0.3"),
        *("objective.adversary=fgm", "objective.teachers=[TEACHER]"),
    ],
}


def losses(folder: Path) -> list[float]:
    return [one["loss"] for one in read_records(folder) if one["kind"] == "step"]


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_changes_the_training_and_is_resumed_bit_for_bit(
    name: str, small: Small, trained: Path, tmp_path: Path, train_killed: Killing
) -> None:
    switches = [one.replace("TEACHER", str(trained / "model")) for one in SWITCHES[name]]
    recipe = small(*switches, "train.save_steps=1")
    train(small("train.save_steps=1"), tmp_path / "plain", QUIET)
    train(recipe, tmp_path / "whole", QUIET)
    assert losses(tmp_path / "whole")[1:] != losses(tmp_path / "plain")[1:]

    train_killed(recipe, tmp_path / "killed", 4)
    assert resume(tmp_path / "killed", QUIET).finished
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    one, other = (
        (tmp_path / name / "model" / "model.safetensors").read_bytes()
        for name in ("whole", "killed")
    )
    assert one == other


def test_a_teacher_of_other_classes_is_refused(
    small: Small, tmp_path: Path, write_rows: Callable[..., Path]
) -> None:
    other = tmp_path / "other.csv"
    rows = write_rows(tmp_path / "rows.csv", 60)
    other.write_text(rows.read_text(encoding="utf-8").replace("rude", "coarse"), encoding="utf-8")
    train(small(f"data.source={other}"), tmp_path / "other", QUIET)
    teacher = f"objective.teachers=[{tmp_path / 'other' / 'model'}]"
    with pytest.raises(UserError, match="does not tell the classes"):
        train(small(teacher), tmp_path / "run", QUIET)
