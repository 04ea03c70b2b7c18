"""Learning to guess each next token: the run, its resume, and the folder that it leaves."""

import json
import math
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from igla.errors import UserError
from igla.model.decoder import Decoder, load_decoder, save_decoder
from igla.recipe import Recipe, load_recipe
from igla.terminal import plain_console
from igla.train.log import read_records
from igla.train.pretraining import Pretraining
from igla.train.run import resume, train

Pretrain = Callable[..., Recipe]
Killing = Callable[[Recipe, Path, int], None]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of two lines, of which each word tells the next, some of them long."""
    chance = random.Random(0)
    chains = {"кот": "пьёт", "пьёт": "молоко", "пёс": "ест", "ест": "мясо", "мясо": "пёс"}
    documents = []
    for index in range(300):
        words = [chance.choice([*chains])]
        while len(words) < (100 if index % 10 == 0 else 12):
            words.append(chains.get(words[-1]) or chance.choice([*chains]))
        documents.append(" ".join(words[:6]) + "\n" + " ".join(words[6:]))
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n\n".join(documents), encoding="utf-8")
    return path


@pytest.fixture
def pretrain(texts: Path) -> Pretrain:
    """The recipe of a small pretraining."""

    def recipe(*changes: str) -> Recipe:
        settings = [
            *("objective.task=causal_lm", "model.layers=2", "model.hidden_size=32"),
            *("model.intermediate_size=64", "text.max_length=32", "text.vocab_size=300"),
            *("train.precision=float32", "train.batch_tokens=512", "optim.learning_rate=3e-3"),
            *("corpus.validation_share=0.1", "corpus.similar=keep", "train.steps=8", *changes),
        ]
        return load_recipe(None, settings).replace(corpus__sources={"texts": str(texts)})

    return recipe


def run(recipe: Recipe, folder: Path) -> Path:
    assert train(recipe, folder, plain_console(quiet=True)).finished
    return folder


def test_it_learns_and_tells_the_bits_of_a_byte(pretrain: Pretrain, tmp_path: Path) -> None:
    recipe = pretrain("train.steps=150", "train.evaluations_per_epoch=2")
    folder = run(recipe, tmp_path / "run")
    found = [record for record in read_records(folder) if record["kind"] == "evaluation"]
    assert found[-1]["validation_loss"] < 0.5 * found[0]["validation_loss"]
    best = json.loads((folder / "metrics.json").read_text())["best"]
    assert best["bits_per_byte"] == min(record["bits_per_byte"] for record in found)
    # Words that tell each other: one choice of five in four words of nine bytes and more.
    assert 0.05 < best["bits_per_byte"] < 1


@pytest.mark.parametrize("more", [[], ["train.precision=bf16", "train.micro_batch_size=4"]])
def test_a_resumed_run_is_the_same_bit_for_bit(
    more: list[str], pretrain: Pretrain, tmp_path: Path, train_killed: Killing
) -> None:
    recipe = pretrain("train.save_steps=3", *more)
    whole = run(recipe, tmp_path / "whole")
    train_killed(recipe, tmp_path / "killed", 5)
    assert resume(tmp_path / "killed", plain_console(quiet=True)).finished
    one, other = (
        (folder / "model" / "model.safetensors").read_bytes()
        for folder in (whole, tmp_path / "killed")
    )
    assert one == other


def test_transformers_opens_it_as_llama_and_finds_the_same_loss(
    pretrain: Pretrain, texts: Path, tmp_path: Path
) -> None:
    folder = run(pretrain("train.steps=40"), tmp_path / "run")
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    assert type(model).__name__ == "LlamaForCausalLM"
    text = "кот пьёт\nмолоко"
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.eos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text

    # What the run found, by their model on the windows that it validated on.
    task = Pretraining.open(load_recipe(folder / "recipe.yaml"), folder, lambda line: None)
    nats = tokens = size = 0.0
    with torch.no_grad():
        for window in task.store.sequences(task.validation):
            ids = torch.from_numpy(window.astype(np.int64))[None]
            predicted = ids.shape[1] - 1
            nats += model(ids, labels=ids).loss.item() * predicted
            tokens += predicted
            size += len(tokenizer.decode(ids[0, 1:], skip_special_tokens=True).encode())
    best = json.loads((folder / "metrics.json").read_text())["best"]
    assert nats / tokens == pytest.approx(best["validation_loss"], rel=1e-4)
    # Windows cut some letters in two; decoded alone, each half is three bytes and not one.
    assert nats / math.log(2) / size == pytest.approx(best["bits_per_byte"], rel=0.02)


def test_a_base_goes_on_and_keeps_its_architecture(pretrain: Pretrain, tmp_path: Path) -> None:
    base = run(pretrain("train.steps=60"), tmp_path / "base")
    before = json.loads((base / "metrics.json").read_text())["best"]["validation_loss"]
    folder = run(pretrain(f"model.base={base / 'model'}"), tmp_path / "run")
    after = json.loads((folder / "metrics.json").read_text())["best"]["validation_loss"]
    assert after < 1.05 * before
    one, other = (
        json.loads((path / "model" / "config.json").read_text()) for path in (base, folder)
    )
    assert one == other


def test_a_base_whose_head_is_its_own_resumes_bit_for_bit(
    pretrain: Pretrain, tmp_path: Path, train_killed: Killing
) -> None:
    """Its words are updated row by row, when they are next read."""
    tied = run(pretrain(), tmp_path / "tied") / "model"
    untied = tmp_path / "untied"
    shutil.copytree(tied, untied)
    save_decoder(untied, Decoder(replace(load_decoder(tied).config, tied=False)))
    recipe = pretrain(f"model.base={untied}", "train.save_steps=3", "optim.learning_rate=3e-3")
    whole = run(recipe, tmp_path / "whole") / "model"
    train_killed(recipe, tmp_path / "killed", 5)
    assert resume(tmp_path / "killed", plain_console(quiet=True)).finished
    killed = tmp_path / "killed" / "model"
    assert (whole / "model.safetensors").read_bytes() == (killed / "model.safetensors").read_bytes()
    before, after = load_decoder(untied), load_decoder(whole)
    assert not torch.equal(before.words.weight, after.words.weight)
    assert not torch.equal(before.head_weight, after.head_weight)


def test_what_encoders_alone_know_is_refused(pretrain: Pretrain, tmp_path: Path) -> None:
    for setting in ("model.ngrams=64", "text.guard=true", "model.dropout=0.1"):
        with pytest.raises(UserError, match="does nothing for objective.task=causal_lm"):
            train(pretrain(setting), tmp_path / "run", plain_console(quiet=True))
    with pytest.raises(UserError, match="byte_bpe"):
        train(pretrain("text.tokenizer=unigram"), tmp_path / "run", plain_console(quiet=True))
    with pytest.raises(UserError, match="no decoder 'tiny'; there are igla-5m"):
        train(pretrain("model.size=tiny"), tmp_path / "run", plain_console(quiet=True))
