from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from igla.errors import UserError
from igla.recipe import Recipe, field_names, load_recipe


def test_the_written_recipe_reads_back_equal(tmp_path: Path) -> None:
    recipe = load_recipe(
        None,
        ["data.source=a: b.csv", "data.label_columns=[x, 'y z']", "optim.learning_rate=3e-05"],
    )
    for documented in (False, True):
        path = tmp_path / "recipe.yaml"
        path.write_text(recipe.to_yaml(documented=documented))
        assert load_recipe(path) == recipe


@settings(deadline=None)
@given(rate=st.floats(1e-12, 1e3), source=st.text(min_size=1))
def test_any_value_survives_the_way_through_yaml(rate: float, source: str) -> None:
    recipe = Recipe().replace(optim__learning_rate=rate, data__source=source)
    content = yaml.safe_load(recipe.to_yaml(documented=True))
    assert Recipe.model_validate(content) == recipe


def test_arguments_change_the_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("train:\n  epochs: 2\n  seed: 7\nmodel:\n")
    recipe = load_recipe(path, ["train.epochs=5"])
    assert (recipe.train.epochs, recipe.train.seed) == (5, 7)
    assert recipe.model == Recipe().model


def test_lists_and_mappings_are_given_as_in_yaml() -> None:
    recipe = load_recipe(
        None, ["optim.betas=[0.8, 0.9]", "corpus.shares={books: 2, chats: [0, 1]}"]
    )
    assert recipe.optim.betas == (0.8, 0.9)
    assert recipe.corpus.shares == {"books": 2, "chats": (0, 1)}


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("train.epoch=3", "unknown key 'train.epoch'; did you mean 'train.epochs'?"),
        ("trian.epochs=3", "unknown key 'trian'; did you mean 'train'?"),
        ("train.epochs=0", "train.epochs should be greater than 0, but is '0'."),
        ("train.precision=fp8", "train.precision should be 'auto', 'float32', 'bf16' or 'fp16'"),
        ("train.epochs", "not of the form section.field=value"),
        ("epochs=3", "'epochs' names no field"),
        ("train=3", "'train' names no field"),
    ],
)
def test_a_mistake_is_one_sentence(argument: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        load_recipe(None, [argument])
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", ["a: [", "- 1\n- 2\n", "\x00", "train: 3\n"])
def test_a_file_that_is_no_recipe_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=r"broken\.yaml"):
        load_recipe(path)


def test_a_missing_file_names_the_command_that_writes_one() -> None:
    with pytest.raises(UserError, match="igla recipe init nowhere.yaml"):
        load_recipe(Path("nowhere.yaml"))


def test_every_field_is_described() -> None:
    names = list(field_names())
    assert len(names) == len(set(names))
    for name in names:
        section, field = name.split(".")
        described = type(getattr(Recipe(), section)).model_fields[field].description
        assert described and described.endswith("."), name
