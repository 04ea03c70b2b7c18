"""Decoders with experts, and with layers of linear cost, learn by a recipe."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from igla.errors import UserError
from igla.model.decoder import Decoder, load_decoder
from igla.recipe import Recipe, load_recipe
from igla.terminal import plain_console
from igla.train.log import read_records
from igla.train.run import resume, train

Killing = Callable[[Recipe, Path, int], None]
EXPERTS = ("model.experts=4", "model.intermediate_size=32")


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lines of random letters, a sign, and the same letters again."""
    draw = np.random.default_rng(0)
    lines = []
    for _ in range(1500):
        letters = " ".join(draw.choice(list("abcdefgh"), 6))
        lines.append(f"{letters} = {letters}")
    path = tmp_path_factory.mktemp("copies") / "copies.txt"
    path.write_text("\n\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def learn(copies: Path) -> Callable[..., Recipe]:
    def recipe(*changes: str) -> Recipe:
        settings = [
            *("objective.task=causal_lm", "model.layers=2", "model.hidden_size=64"),
            *("model.intermediate_size=128", "text.max_length=32", "text.vocab_size=280"),
            *("train.precision=float32", "train.batch_tokens=1024", "optim.learning_rate=5e-3"),
            *("corpus.similar=keep", "corpus.letters_share=0.3", "train.steps=8", *changes),
        ]
        return load_recipe(None, settings).replace(corpus__sources={"texts": str(copies)})

    return recipe


def run(recipe: Recipe, folder: Path) -> Path:
    assert train(recipe, folder, plain_console(quiet=True)).finished
    return folder


def figures(folder: Path) -> dict[str, float]:
    best: dict[str, float] = json.loads((folder / "metrics.json").read_text())["best"]
    return best


def steps(folder: Path) -> list[dict[str, Any]]:
    return [record for record in read_records(folder) if record["kind"] == "step"]


def test_experts_are_balanced_reported_and_resumed_bit_for_bit(
    learn: Callable[..., Recipe], tmp_path: Path, train_killed: Killing
) -> None:
    recipe = learn(
        *EXPERTS, "objective.balance_bias=0.001", "objective.expert_capacity=1.0",
        "train.micro_batch_size=20", "train.save_steps=3", "train.precision=bf16",
    )  # fmt: skip
    whole = run(recipe, tmp_path / "whole")
    logged = steps(whole)
    # Some expert is always asked for more than its even share, and none for all.
    assert all(0 < step["dropped_share"] < 0.75 for step in logged)
    assert all(0 < step["balance_loss"] < 4 for step in logged)
    assert figures(whole)["dropped_share"] == 0  # a validation drops nothing
    model = load_decoder(whole / "model")
    assert any(
        name.endswith("router.bias") and value.any() for name, value in model.state_dict().items()
    )
    train_killed(recipe, tmp_path / "killed", 5)
    assert resume(tmp_path / "killed", plain_console(quiet=True)).finished
    one, other = (
        (folder / "model" / "model.safetensors").read_bytes()
        for folder in (whole, tmp_path / "killed")
    )
    assert one == other
    kept = ("loss", "gradient_norm", "dropped_share", "busiest_expert", "balance_loss")
    for step, again in zip(logged, steps(tmp_path / "killed"), strict=True):
        assert [step[name] for name in kept] == [again[name] for name in kept]


def test_a_dense_base_is_upcycled_and_left_as_mixtral(
    learn: Callable[..., Recipe], tmp_path: Path
) -> None:
    base = run(learn("model.mixers=[attention]"), tmp_path / "base")
    before = figures(base)["validation_loss"]
    recipe = learn(f"model.base={base / 'model'}", "model.experts=4", "optim.learning_rate=1e-6")
    folder = run(recipe, tmp_path / "run")
    assert figures(folder)["validation_loss"] == pytest.approx(before, rel=1e-3)
    theirs = AutoModelForCausalLM.from_pretrained(folder / "model")
    assert type(theirs).__name__ == "MixtralForCausalLM"
    assert theirs.config.num_local_experts == 4
    # What has experts goes on as it is, and gets no further ones.
    run(learn(f"model.base={folder / 'model'}"), tmp_path / "on")
    with pytest.raises(UserError, match="4 experts of its own"):
        run(learn(f"model.base={folder / 'model'}", "model.experts=8"), tmp_path / "more")


def test_layers_of_linear_cost_learn_by_a_recipe_and_are_resumed(
    learn: Callable[..., Recipe], tmp_path: Path, train_killed: Killing
) -> None:
    recipe = learn(
        "model.mixers=[ssd,window,gla,attention]", "model.sliding_window=8", "model.layers=4",
        "train.steps=24", "train.save_steps=10", "train.precision=bf16",
    )  # fmt: skip
    whole = run(recipe, tmp_path / "whole")
    logged = steps(whole)
    assert logged[-1]["loss"] < 0.6 * logged[0]["loss"]
    model = load_decoder(whole / "model")
    assert isinstance(model, Decoder) and model.config.mixers == (
        "ssd",
        "attention",
        "gla",
        "attention",
    )
    assert [model.config.window(layer) for layer in (1, 3)] == [8, None]
    train_killed(recipe, tmp_path / "killed", 13)
    assert resume(tmp_path / "killed", plain_console(quiet=True)).finished
    again = load_decoder(tmp_path / "killed" / "model").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["model.shared_experts=1"], "model.shared_experts does nothing without model.experts"),
        (["objective.expert_capacity=1"], "the model has no experts"),
        (["objective.balance_bias=0.1"], "the model has no experts"),
        (["model.experts=2", "model.experts_per_token=3"], "3 of 2 experts"),
        (["model.mixers=[window]"], "sliding_window"),
        (["model.sliding_window=4"], "sliding_window"),
    ],
)
def test_settings_that_do_nothing_are_refused(
    settings: list[str], said: str, learn: Callable[..., Recipe], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        run(learn(*settings), tmp_path / "run")


def test_encoders_have_no_experts(small: Callable[..., Recipe], tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"model\.experts does nothing for objective\.task=classify"
    ):
        run(small("model.experts=2"), tmp_path / "run")
