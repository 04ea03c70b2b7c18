"""Runs that train an adapter in place of the model."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from igla.cli import main
from igla.errors import UserError
from igla.infer.classifier import Classifier
from igla.model.folder import load_classifier
from igla.recipe import Recipe, load_recipe
from igla.terminal import plain_console
from igla.train.run import resume, train

SMALL = (
    "train.batch_size=16 train.precision=float32 train.steps=6 optim.learning_rate=2e-3"
).split()
QUIET = plain_console(quiet=True)
TEXTS = ["глупый злой дом", "добрый милый день", "тупой разговор 7"]
METHODS = {
    "lora": ("adapt.rate_ratio=4", "adapt.dropout=0.1"),
    "dora": ("adapt.targets=[query, value, output.dense]",),
    "qlora": ("adapt.rank_stabilised=true", "adapt.whole=[layer.0.intermediate]"),
}


@pytest.fixture(scope="module")
def adapting(rows: Path, trained: Path) -> Callable[..., Recipe]:
    """A recipe that adapts the small model that has learned the rows."""

    def recipe(method: str, *changes: str) -> Recipe:
        if method == "qlora":
            pytest.importorskip("bitsandbytes", reason="the extra igla[qlora] is not installed")
        own = [f"data.source={rows}", f"model.base={trained / 'model'}", f"adapt.method={method}"]
        own += ["adapt.rank=4", "train.save_steps=2", *METHODS[method]]
        return load_recipe(None, [*own, *SMALL, *changes])

    return recipe


@pytest.fixture(scope="module", params=METHODS)
def run(
    request: pytest.FixtureRequest,
    adapting: Callable[..., Recipe],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, Path]:
    """A method, and the folder of a finished run with it."""
    folder = tmp_path_factory.mktemp("adapted") / "run"
    assert train(adapting(request.param), folder, QUIET).finished
    return request.param, folder


def losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [one["loss"] for line in lines if (one := json.loads(line))["kind"] == "step"]


def test_only_the_adapter_is_trained_and_saved(run: tuple[str, Path], trained: Path) -> None:
    method, folder = run
    for version in (folder / "versions").iterdir():
        for file in ("model", "optimizer"):
            names = load_file(version / f"{file}.safetensors")
            whole = ("dense.", "output.", "encoder.layers.0.up.")
            assert names and all(".adapter." in name or name.startswith(whole) for name in names)
    base = trained / "model" / "model.safetensors"
    assert not (folder / "model" / "model.safetensors").exists()
    adapter = folder / "model" / "adapter_model.safetensors"
    assert adapter.stat().st_size < base.stat().st_size / 2
    config = json.loads((folder / "model" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == str(trained / "model")
    measured = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert measured["model"]["accuracy"] > 0.8
    log = (folder / "train.log").read_text(encoding="utf-8")
    assert f"adapter {method} of rank 4: 0.0" in log
    assert ("base in NF4" in log) == (method == "qlora")


def test_resuming_is_bit_exact(
    run: tuple[str, Path],
    adapting: Callable[..., Recipe],
    train_killed: Callable[[Recipe, Path, int], None],
    tmp_path: Path,
) -> None:
    method, whole = run
    train_killed(adapting(method), tmp_path / "cut", 4)
    assert resume(tmp_path / "cut", QUIET).finished
    assert losses(tmp_path / "cut") == losses(whole)
    ours, theirs = (
        (folder / "model" / "adapter_model.safetensors").read_bytes()
        for folder in (tmp_path / "cut", whole)
    )
    assert ours == theirs


def test_merged_the_run_gives_the_same_scores_as_an_ordinary_folder(
    run: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = run
    expected = Classifier.load(folder / "model").probabilities(TEXTS)
    words = ["igla", "adapt", "merge", str(folder), "--output", str(tmp_path / "merged")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match="^0$"):
        main()
    loaded = load_classifier(tmp_path / "merged")
    assert not loaded.new and not loaded.unused
    merged = Classifier.load(tmp_path / "merged").probabilities(TEXTS)
    np.testing.assert_allclose(merged, expected, rtol=0, atol=1e-6)
    with pytest.raises(SystemExit, match="^2$"):
        main()  # the folder is there by now


def test_an_adapter_learns_what_its_base_has_not(
    rows: Path, adapting: Callable[..., Recipe], tmp_path: Path
) -> None:
    """The labels the other way round, in bf16."""
    swapped = tmp_path / "swapped.csv"
    text = rows.read_text(encoding="utf-8")
    swapped.write_text(
        text.replace(",rude\n", ",x\n").replace(",kind\n", ",rude\n").replace(",x\n", ",kind\n"),
        encoding="utf-8",
    )
    changes = [f"data.source={swapped}", "train.steps=40", "train.precision=bf16"]
    train(adapting("dora", *changes, "train.save_steps=100"), tmp_path / "run", QUIET)
    found = losses(tmp_path / "run")
    assert np.mean(found[-5:]) < found[0] / 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["adapt.method=lora", "model.base=none"], "adapts a base: name one by --base"),
        (["adapt.rank=4"], "do nothing without adapt.method"),
        (["adapt.method=lora", "objective.task=masked_lm"], "adapt.method does nothing for"),
    ],
)
def test_what_makes_no_sense_is_refused(
    changes: list[str], said: str, rows: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(None, [f"data.source={rows}", *changes])
    with pytest.raises(UserError, match=said):
        train(recipe, tmp_path / "run", QUIET)
