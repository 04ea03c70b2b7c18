"""Elastic weight consolidation: an old task is forgotten less, and a new one still learned."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from igla.errors import UserError
from igla.model.decoder import Decoder, load_decoder, save_decoder
from igla.objective.ewc import Anchored
from igla.recipe import Recipe, load_recipe
from igla.terminal import plain_console
from igla.train import run as run_module
from igla.train.consolidation import consolidated
from igla.train.log import read_records
from igla.train.pretraining import Pretraining
from igla.train.run import resume, train

Killing = Callable[[Recipe, Path, int], None]
QUIET = plain_console(quiet=True)
OLD = {"кот": "пьёт", "пьёт": "молоко", "пёс": "ест", "ест": "мясо", "мясо": "пёс"}
# The same words, but others tell each other, and of some the old ones go on.
NEW = OLD | {"кот": "ест", "ест": "молоко"}
SHAPES = {
    "causal_lm": ["model.layers=2", "train.batch_tokens=512", "text.vocab_size=300"],
    "masked_lm": ["model.size=tiny", "model.layers=1", "model.dropout=0.1", "train.batch_size=32"],
}
# By which the tests hold the old task; a window's squared gradient is small.
WEIGHT = "objective.ewc=3e4"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The old texts, and the new ones."""
    folder = tmp_path_factory.mktemp("texts")
    for name, chains in {"old": OLD, "new": NEW}.items():
        chance, documents = random.Random(name), []
        for _ in range(300):
            words = [chance.choice([*chains])]
            while len(words) < 12:
                words.append(chains.get(words[-1]) or chance.choice([*chains]))
            documents.append(" ".join(words))
        (folder / f"{name}.txt").write_text("\n\n".join(documents), encoding="utf-8")
    return lambda name: folder / f"{name}.txt"


@pytest.fixture(scope="module")
def recipe(texts: Callable[[str], Path]) -> Callable[..., Recipe]:
    """The recipe of a small training of a task on old or new texts."""

    def changed(task: str, which: str, *changes: str) -> Recipe:
        settings = [
            *(f"objective.task={task}", "model.hidden_size=32", "model.intermediate_size=64"),
            *("text.max_length=32", "train.precision=float32", "optim.learning_rate=3e-3"),
            *("corpus.validation_share=0.1", "corpus.similar=keep", "train.steps=8"),
        ]
        settings += [*SHAPES[task], *changes]
        return load_recipe(None, settings).replace(corpus__sources={which: str(texts(which))})

    return changed


@pytest.fixture(scope="module")
def held(texts: Callable[[str], Path]) -> list[str]:
    return [WEIGHT, f"objective.ewc_corpus=[{texts('old')}]", "objective.ewc_rows=64"]


@pytest.fixture(scope="module")
def bases(
    recipe: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The model of a task that has learned the old texts."""
    folder = tmp_path_factory.mktemp("bases")

    def base(task: str) -> Path:
        if not (folder / task / "model").exists():
            run(recipe(task, "old", "train.steps=200"), folder / task)
        return folder / task / "model"

    return base


def run(recipe: Recipe, folder: Path) -> Path:
    assert train(recipe, folder, QUIET).finished
    return folder / "model"


def weights(model: Path) -> bytes:
    return (model / "model.safetensors").read_bytes()


def loss(recipe: Recipe, folder: Path) -> float:
    """Of the recipe's base on the recipe's texts."""
    folder.mkdir()
    task = Pretraining.open(recipe, folder, lambda line: None)
    model = task.build_model(recipe, lambda line: None)
    return task.evaluate(model).figures["validation_loss"]


@pytest.mark.parametrize("task", SHAPES)
def test_the_old_texts_are_forgotten_less_and_the_new_ones_still_learned(
    task: str,
    recipe: Callable[..., Recipe],
    held: list[str],
    bases: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    on_base = [f"model.base={bases(task)}", "train.steps=60", "optim.learning_rate=1e-3"]
    models = {
        "base": bases(task),
        "plain": run(recipe(task, "new", *on_base), tmp_path / "plain"),
        "held": run(recipe(task, "new", *on_base, *held), tmp_path / "held"),
    }
    of = {
        (name, which): loss(
            recipe(task, which, f"model.base={model}"), tmp_path / f"{name}-{which}"
        )
        for name, model in models.items()
        for which in ("old", "new")
    }
    forgotten = {name: of[name, "old"] - of["base", "old"] for name in ("plain", "held")}
    assert forgotten["plain"] > 0.1 and forgotten["held"] < 0.6 * forgotten["plain"]
    assert of["plain", "new"] < of["held", "new"] < of["base", "new"] - 0.1


EXACT = {
    "causal_lm": ("causal_lm", ["train.micro_batch_size=4"]),
    "bf16": ("causal_lm", ["train.precision=bf16", "train.micro_batch_size=4", "optim.ema=0.9"]),
    # Which words are hidden while the old texts are gone through is drawn.
    "masked_lm": ("masked_lm", []),
}


@pytest.mark.parametrize("kind", EXACT)
def test_a_resumed_run_is_the_same_bit_for_bit(
    kind: str,
    recipe: Callable[..., Recipe],
    held: list[str],
    bases: Callable[[str], Path],
    tmp_path: Path,
    train_killed: Killing,
) -> None:
    task, more = EXACT[kind]
    own = recipe(task, "new", f"model.base={bases(task)}", "train.save_steps=3", *held, *more)
    whole = run(own, tmp_path / "whole")
    train_killed(own, tmp_path / "killed", 5)
    assert resume(tmp_path / "killed", QUIET).finished
    assert weights(tmp_path / "killed" / "model") == weights(whole)
    penalties = [
        [one["penalty"] for one in read_records(tmp_path / name) if one["kind"] == "step"]
        for name in ("whole", "killed")
    ]
    assert penalties[0] == penalties[1]
    # It begins where the base is.
    assert penalties[0][0] == 0 < penalties[0][-1]


def test_rows_of_words_that_a_step_does_not_read_are_held_as_well(
    recipe: Callable[..., Recipe],
    held: list[str],
    bases: Callable[[str], Path],
    tmp_path: Path,
    train_killed: Killing,
) -> None:
    """A head of its own lets the optimizer put the other rows off, which a penalty does not."""
    base = tmp_path / "untied"
    shutil.copytree(bases("causal_lm"), base)
    tied = load_decoder(base)
    untied = Decoder(replace(tied.config, tied=False))
    untied.load_state_dict(tied.state_dict() | {"head.weight": tied.words.weight})
    save_decoder(base, untied)
    own = recipe("causal_lm", "new", f"model.base={base}", "train.save_steps=3", *held)
    whole = run(own, tmp_path / "whole")
    train_killed(own, tmp_path / "killed", 5)
    assert resume(tmp_path / "killed", QUIET).finished
    assert weights(tmp_path / "killed" / "model") == weights(whole)


def test_conversations_are_learned_and_the_old_texts_held_by_what_is_trained(
    bases: Callable[[str], Path], held: list[str], tmp_path: Path
) -> None:
    data = tmp_path / "talks.jsonl"
    rows = [{"prompt": f"кот {number}", "completion": "ест мясо"} for number in range(200)]
    data.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    settings = [
        *("objective.task=sft", f"model.base={bases('causal_lm')}", f"data.source={data}"),
        *("text.max_length=32", "train.precision=float32", "train.batch_tokens=512"),
        *("optim.learning_rate=3e-3", "train.steps=20", "train.save_steps=20", *held),
    ]
    for name, more in {"all": [], "lora": ["adapt.method=lora", "adapt.rank=4"]}.items():
        folder = tmp_path / name
        assert train(load_recipe(None, [*settings, *more]), folder, QUIET).finished
        steps = [one for one in read_records(folder) if one["kind"] == "step"]
        assert steps[0]["penalty"] == 0 < steps[-1]["penalty"]
        assert steps[-1]["loss"] < 0.8 * steps[0]["loss"]
        trained = load_file(folder / "versions" / "step-000020" / "model.safetensors")
        numbers = sum(value.numel() for value in trained.values())
        said = f"ewc: {numbers:,} weights are held by"
        assert said in (folder / "train.log").read_text(encoding="utf-8")


def test_what_the_weights_are_held_by_does_not_hang_on_the_precision(
    recipe: Callable[..., Recipe],
    held: list[str],
    bases: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[Anchored] = []

    def noted(*arguments: Any) -> Anchored:
        objective = consolidated(*arguments)
        assert isinstance(objective, Anchored)
        found.append(objective)
        return objective

    monkeypatch.setattr(run_module, "consolidated", noted)
    for precision in ("float32", "bf16"):
        settings = [f"model.base={bases('causal_lm')}", f"train.precision={precision}", *held]
        run(recipe("causal_lm", "new", *settings, "train.steps=1"), tmp_path / precision)
    one, other = found
    assert all(torch.equal(one.fisher[name], other.fisher[name]) for name in one.fisher)
    base = load_decoder(bases("causal_lm"))
    for name, weight in base.named_parameters():
        assert torch.equal(one.anchor[name], weight) and torch.equal(other.anchor[name], weight)
    assert all(value.dtype == torch.float32 for value in one.fisher.values())


def test_texts_that_have_changed_are_refused_on_resuming(
    recipe: Callable[..., Recipe],
    texts: Callable[[str], Path],
    bases: Callable[[str], Path],
    tmp_path: Path,
    train_killed: Killing,
) -> None:
    old = tmp_path / "old.txt"
    shutil.copy(texts("old"), old)
    settings = [WEIGHT, f"objective.ewc_corpus=[{old}]", f"model.base={bases('causal_lm')}"]
    train_killed(recipe("causal_lm", "new", *settings, "train.save_steps=1"), tmp_path / "run", 2)
    old.write_text(old.read_text(encoding="utf-8") + "\n\nпёс ест мясо пёс", encoding="utf-8")
    with pytest.raises(UserError, match="not those that this run began with"):
        resume(tmp_path / "run", QUIET)
    shutil.copy(texts("old"), old)
    assert resume(tmp_path / "run", QUIET).finished


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["objective.ewc=1", "model.base=BASE"], "asks for texts of the old task"),
        (["objective.ewc_corpus=[OLD]"], "do nothing without objective.ewc"),
        (["objective.ewc_rows=8"], "do nothing without objective.ewc"),
        (["objective.ewc=1", "objective.ewc_corpus=[OLD]"], "name one by --base"),
        (
            ["objective.task=wedlm", "objective.ewc=1", "objective.ewc_corpus=[OLD]"],
            "objective.ewc does nothing for objective.task=wedlm",
        ),
        (
            [
                *("objective.ewc=1", "objective.ewc_corpus=[OLD]", "model.base=BASE"),
                *("objective.task=masked_lm", "text.vocabulary=new", "text.tokenizer=wordpiece"),
                "model.words=pieces",
            ],
            "text.vocabulary=new gives it other words",
        ),
        (
            ["objective.ewc=1", "objective.ewc_corpus=[nowhere.txt]", "model.base=BASE"],
            "nowhere.txt",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(
    settings: list[str],
    said: str,
    recipe: Callable[..., Recipe],
    texts: Callable[[str], Path],
    bases: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    files = {"BASE": str(bases("causal_lm")), "OLD": str(texts("old"))}
    for name, path in files.items():
        settings = [one.replace(name, path) for one in settings]
    with pytest.raises(UserError, match=said):
        train(recipe("causal_lm", "new", *settings), tmp_path / "run", QUIET)
