"""The other models that a run learns with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from igla.errors import UserError
from igla.recipe import Recipe
from igla.terminal import plain_console
from igla.train.run import resume

ROLES = {
    "base": ["model.base={other}/model", "model.size=minilm-l6-h384", "model.layers=null",
             "model.hidden_size=null", "model.intermediate_size=null"],
    "teacher": ["objective.teachers=[{other}]"],
    "judge": ["curriculum.by=loss", "curriculum.judge={other}"],
}  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
def test_one_that_has_changed_is_refused_on_resuming(
    role: str,
    small: Callable[..., Recipe],
    train_killed: Callable[[Recipe, Path, int], None],
    trained: Path,
    tmp_path: Path,
) -> None:
    other, run = shutil.copytree(trained, tmp_path / "other"), tmp_path / "run"
    changes = [change.format(other=other) for change in ROLES[role]]
    train_killed(small(*changes, "train.save_steps=1"), run, 2)
    assert [name.split()[0] for name in json.loads((run / "others.json").read_text())] == [role]
    weights = other / "model/model.safetensors"
    tensors = load_file(weights)
    save_file({name: value + 1 for name, value in tensors.items()}, weights)
    with pytest.raises(UserError, match=f"The {role} .* is not the one that this run began with"):
        resume(run, plain_console(quiet=True))
    save_file(tensors, weights)
    assert resume(run, plain_console(quiet=True)).finished
