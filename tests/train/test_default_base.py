"""The base that comes with igla, and when it is taken."""

import json
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors import safe_open

from igla.cli import main
from igla.errors import UserError
from igla.estimator import TextClassifier
from igla.infer.classifier import Classifier
from igla.model.bases import BUNDLED, bundled_folder
from igla.model.folder import load_encoder
from igla.model.hub import base_folder
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


def test_longer_texts_than_it_reads_start_from_scratch(rows: Path, tmp_path: Path) -> None:
    changes = [f"data.source={rows}", "text.max_length=600"]
    assert trained_by(load_recipe(None, changes), tmp_path / "run").model.base is None
    log = (tmp_path / "run/train.log").read_text(encoding="utf-8")
    assert "from scratch, since minilm-ru reads 512 tokens" in log


def test_no_folder_of_its_name_takes_its_place(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("minilm-ru", "auto"):
        (tmp_path / name).mkdir()
    assert base_folder("minilm-ru") == FOLDER
    monkeypatch.setattr("sys.argv", ["igla", "train", "--data", str(rows), "--dry-run"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code


def test_what_was_begun_from_scratch_goes_on_so(rows: Path, tmp_path: Path) -> None:
    """An estimator that fits again in its folder may leave the base open now."""
    changes = [f"data.source={rows}", "train.steps=2", "train.precision=float32"]
    quiet = plain_console(quiet=True)
    train(load_recipe(None, [*changes, "model.base=none"]), tmp_path / "run", quiet)
    train(load_recipe(None, changes), tmp_path / "run", quiet)
    assert load_recipe(tmp_path / "run/recipe.yaml").model.base is None
    with pytest.raises(UserError, match="began without the base minilm-ru"):
        train(load_recipe(None, [*changes, "model.base=minilm-ru"]), tmp_path / "run", quiet)
    assert load_recipe(tmp_path / "run/recipe.yaml").model.base is None


def test_settings_of_an_estimator_go_before_its_parameters(tmp_path: Path) -> None:
    texts = [f"{'плохой' if row % 2 else 'хороший'} день {row}" for row in range(40)]
    chosen = {"model.base": "none", "model.layers": "1", "train.steps": "1"}
    TextClassifier(output=str(tmp_path / "run"), settings=chosen).fit(texts, [0, 1] * 20)
    recipe = load_recipe(tmp_path / "run/recipe.yaml")
    assert recipe.model.base is None and recipe.model.layers == 1


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers within PEFT
def test_an_adapter_of_it_is_opened_by_peft_and_wherever_igla_lies(
    rows: Path, tmp_path: Path
) -> None:
    changes = [f"data.source={rows}", "adapt.method=lora", "adapt.rank=2"]
    trained_by(load_recipe(None, changes), tmp_path / "run")
    folder = tmp_path / "run/model"
    opened = peft.AutoPeftModelForSequenceClassification.from_pretrained(
        folder, num_labels=2, dtype=torch.float32
    )
    tokens = load_tokenizer(folder).encode("глупый разговор").ids
    with torch.no_grad():
        theirs = opened.eval()(torch.tensor([tokens])).logits
    ours = Classifier.load(folder).logits(["глупый разговор"])
    assert np.abs(theirs.numpy() - ours).max() < 1e-5
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "/elsewhere/igla/model/bases/minilm-ru"
    (folder / "adapter_config.json").write_text(json.dumps(config))
    assert np.array_equal(Classifier.load(folder).logits(["глупый разговор"]), ours)


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
