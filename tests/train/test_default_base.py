"""The base that comes with igla, and when it is taken."""

from pathlib import Path

import pytest
import torch
import transformers
from safetensors import safe_open

from igla.model.bases import BUNDLED, bundled_folder
from igla.model.folder import load_encoder
from igla.recipe import Recipe, load_recipe
from igla.terminal import plain_console
from igla.text.script import mostly_russian
from igla.text.tokenizer import load_tokenizer
from igla.train.run import train

FOLDER = bundled_folder("minilm-ru")
ENGLISH = "text,label\n" + "".join(
    f"{word} thing number {index},{word}\n" for index in range(30) for word in ("good", "bad")
)


def trained_by(recipe: Recipe, folder: Path) -> Recipe:
    train(recipe.replace(train__steps=1, train__precision="float32"), folder,
          plain_console(quiet=True))  # fmt: skip
    return load_recipe(folder / "recipe.yaml")


def test_russian_texts_start_from_it(rows: Path, tmp_path: Path) -> None:
    recipe = trained_by(load_recipe(None, [f"data.source={rows}"]), tmp_path / "run")
    assert recipe.model.base == "minilm-ru"
    assert recipe.optim.learning_rate == BUNDLED["minilm-ru"].learning_rate
    log = (tmp_path / "run/train.log").read_text(encoding="utf-8")
    assert "base minilm-ru, since the texts are in Russian letters" in log
    started = load_encoder(FOLDER).embeddings.word.weight
    ended = load_encoder(tmp_path / "run/model").embeddings.word.weight
    assert torch.allclose(started, ended, atol=1e-3)  # one step away, and not random
    card = (tmp_path / "run/model/README.md").read_text(encoding="utf-8")
    assert "base_model: minilm-ru" in card
    # Repeated by its own recipe, the run stands on the same base.
    assert trained_by(recipe, tmp_path / "again").model.base == "minilm-ru"


def test_others_start_from_scratch(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ENGLISH)
    recipe = load_recipe(None, [f"data.source={tmp_path / 'rows.csv'}"])
    assert trained_by(recipe, tmp_path / "run").model.base is None


@pytest.mark.parametrize(
    "change",
    ["model.base=none", "model.base=null", "model.size=tiny", "model.layers=1",
     "model.words=cooccurrence", "text.lowercase=false", "text.vocab_size=500",
     "objective.task=masked_lm", "objective.task=sft"],
)  # fmt: skip
def test_who_asks_for_something_else_gets_it(change: str) -> None:
    assert load_recipe(None, [change]).model.base is None


@pytest.mark.parametrize("change", ["text.guard=true", "model.ngrams=1024", "model.dropout=0.2"])
def test_what_goes_with_a_base_leaves_it_open(change: str) -> None:
    assert load_recipe(None, [change]).model.base == "auto"


def test_it_is_small_and_whole() -> None:
    weights = FOLDER / "model.safetensors"
    assert weights.stat().st_size < 50e6
    with safe_open(weights, "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118
    assert "license:" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_it_knows_russian_as_transformers_reads_it() -> None:
    """The right word is among the likeliest: what a body that has learned nothing cannot do."""
    model = transformers.BertForMaskedLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
    tokenizer = load_tokenizer(FOLDER)
    for text, word in [
        ("он сказал, что больше не [MASK] этого делать.", "будет"),
        ("я тебя очень [MASK].", "люблю"),
        ("как тебя [MASK]? меня зовут иван.", "зовут"),
        ("сколько это [MASK]? сто рублей.", "стоит"),
    ]:
        ids = torch.tensor([tokenizer.encode(text).ids])
        place = int((ids[0] == tokenizer.token_to_id("[MASK]")).nonzero())
        with torch.no_grad():
            logits = model(ids).logits[0, place]
        rank = int((logits > logits[tokenizer.token_to_id(word)]).sum())
        assert rank < 5, (text, rank)


def test_half_of_the_letters_decide() -> None:
    assert mostly_russian(["Привет, world"]) and mostly_russian(["ё", "a"])
    assert not mostly_russian(["hello, мир!"]) and not mostly_russian(["42", ""])
