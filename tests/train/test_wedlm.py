"""Learning to fill masks: the run on a decoder's folder, its resume, and the folder that it
leaves."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from igla.errors import UserError
from igla.model.decoder import Decoder, load_decoder, save_decoder
from igla.recipe import Recipe, load_recipe
from igla.terminal import plain_console
from igla.text.tokenizer import load_tokenizer
from igla.train.log import read_records
from igla.train.run import resume, train

Recipes = Callable[..., Recipe]
Killing = Callable[[Recipe, Path, int], None]
SMALL = (
    "train.precision=float32 train.batch_tokens=512 corpus.validation_share=0.1 "
    "corpus.similar=keep text.max_length=48"
).split()


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts that say each thing twice."""
    chance = random.Random(0)
    words = "кот пёс дом сад лес река мост поле".split()
    documents = []
    for _ in range(400):
        told = " ".join(chance.choice(words) for _ in range(5))
        documents.append(f"{told} : {told}")
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n\n".join(documents), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def base(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder that has learned them one word after another."""
    shape = "model.layers=2 model.hidden_size=64 model.intermediate_size=128".split()
    settings = ["objective.task=causal_lm", "text.vocab_size=300", "train.steps=100", *shape]
    recipe = load_recipe(None, [*SMALL, "optim.learning_rate=3e-3", *settings])
    folder = tmp_path_factory.mktemp("base") / "run"
    train(recipe.replace(corpus__sources={"texts": str(texts)}), folder, plain_console(quiet=True))
    return folder / "model"


@pytest.fixture
def learn(texts: Path, base: Path) -> Recipes:
    """The recipe of a small run on the base."""

    def recipe(*changes: str) -> Recipe:
        settings = ["objective.task=wedlm", f"model.base={base}", "train.steps=8", *changes]
        return load_recipe(None, [*SMALL, *settings]).replace(corpus__sources={"texts": str(texts)})

    return recipe


def run(recipe: Recipe, folder: Path) -> Path:
    assert train(recipe, folder, plain_console(quiet=True)).finished
    return folder


def test_it_learns_to_fill_masks_and_keeps_the_next_word(learn: Recipes, tmp_path: Path) -> None:
    folder = run(learn("train.steps=120", "train.evaluations_per_epoch=1"), tmp_path / "run")
    found = [record for record in read_records(folder) if record["kind"] == "evaluation"]
    assert found[-1]["masked"] < 0.6 * found[0]["masked"]
    assert found[-1]["autoregressive"] < 1.2 * found[0]["autoregressive"]
    assert found[-1]["validation_loss"] == pytest.approx(
        found[-1]["masked"] + found[-1]["autoregressive"], rel=1e-6
    )


@pytest.mark.parametrize("more", [[], ["train.precision=bf16", "train.micro_batch_size=4"]])
def test_a_resumed_run_is_the_same_bit_for_bit(
    more: list[str], learn: Recipes, tmp_path: Path, train_killed: Killing
) -> None:
    recipe = learn("train.save_steps=3", *more)
    whole = run(recipe, tmp_path / "whole")
    train_killed(recipe, tmp_path / "killed", 5)
    assert resume(tmp_path / "killed", plain_console(quiet=True)).finished
    one, other = (
        (folder / "model" / "model.safetensors").read_bytes()
        for folder in (whole, tmp_path / "killed")
    )
    assert one == other


def test_the_folder_says_what_the_mask_is_and_transformers_opens_it(
    learn: Recipes, base: Path, tmp_path: Path
) -> None:
    folder = run(learn(), tmp_path / "run") / "model"
    known = json.loads((base / "config.json").read_text())["vocab_size"]
    config = json.loads((folder / "config.json").read_text())
    assert config["wedlm"] == {"mask_token_id": known, "block": 32}
    assert config["vocab_size"] == known + 1
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.mask_token_id == known
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer("кот пёс", return_tensors="pt")["input_ids"]
    assert model(ids).logits.shape[-1] == known + 1


def test_the_mask_starts_as_the_mean_of_all_words(
    learn: Recipes, base: Path, tmp_path: Path
) -> None:
    settings = ("train.steps=1", "optim.learning_rate=1e-12", "optim.weight_decay=0")
    folder = run(learn(*settings), tmp_path / "run") / "model"
    before, after = load_decoder(base), load_decoder(folder)
    torch.testing.assert_close(after.words.weight[:-1], before.words.weight)
    torch.testing.assert_close(after.words.weight[-1], before.words.weight.mean(dim=0))


def test_a_second_run_keeps_the_mask(learn: Recipes, tmp_path: Path) -> None:
    first = run(learn(), tmp_path / "first") / "model"
    second = run(learn(f"model.base={first}"), tmp_path / "second") / "model"
    one, other = (json.loads((path / "config.json").read_text()) for path in (first, second))
    assert one == other


def test_a_tokenizer_with_more_tokens_than_the_model_has_rows_is_refused(
    base: Path, learn: Recipes, tmp_path: Path
) -> None:
    other = shutil.copytree(base, tmp_path / "base")
    tokenizer = load_tokenizer(other)
    tokenizer.add_special_tokens(["<mask>"])
    tokenizer.save(str(other / "tokenizer.json"))
    known = tokenizer.get_vocab_size()
    with pytest.raises(UserError, match=f"{known} tokens, but its model knows {known - 1}"):
        run(learn(f"model.base={other}"), tmp_path / "run")


def test_a_base_whose_layers_keep_a_state_is_refused(
    base: Path, learn: Recipes, tmp_path: Path
) -> None:
    other = shutil.copytree(base, tmp_path / "base")
    config = replace(load_decoder(base).config, mixers=("attention", "gla"))
    save_decoder(other, Decoder(config), {"eos_token_id": 0})
    with pytest.raises(UserError, match=r"layers that keep a state.*cannot learn objective\.task"):
        run(learn(f"model.base={other}"), tmp_path / "run")


def test_without_a_base_it_is_refused(learn: Recipes, tmp_path: Path) -> None:
    recipe = learn().replace(model__base=None)
    with pytest.raises(UserError, match="goes on from a decoder"):
        train(recipe, tmp_path / "run", plain_console(quiet=True))


def test_conversations_are_learned_as_well_and_the_folder_has_their_template(
    base: Path, tmp_path: Path
) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"кот {number}"},
                      {"role": "assistant", "content": f"пёс {number}"}]}
        for number in range(60)
    ]  # fmt: skip
    data = tmp_path / "talks.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    own = ["objective.task=wedlm", f"model.base={base}", f"data.source={data}", "train.steps=4"]
    recipe = load_recipe(None, [*own, "train.precision=float32", "train.batch_tokens=512"])
    folder = run(recipe, tmp_path / "run") / "model"
    assert "wedlm" in json.loads((folder / "config.json").read_text())
    assert (folder / "chat_template.jinja").is_file()
    with pytest.raises(UserError, match="not both"):
        both = recipe.replace(corpus__sources={"texts": str(data)})
        train(both, tmp_path / "both", plain_console(quiet=True))
