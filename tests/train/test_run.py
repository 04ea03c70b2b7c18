"""A training from recipe to report."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from igla.errors import UserError
from igla.estimator import TextClassifier
from igla.optim import learning_rate_factor
from igla.recipe import Recipe, load_recipe
from igla.sealed import check_sealed
from igla.terminal import plain_console
from igla.train.run import Outcome, resume, train

Small = Callable[..., Recipe]


def run(recipe: Recipe, folder: Path) -> Outcome:
    return train(recipe, folder, plain_console(quiet=True))


def steps(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for line in lines if (record := json.loads(line))["kind"] == "step"]


def losses(folder: Path) -> list[float]:
    return [record["loss"] for record in steps(folder)]


def test_a_run_folder_holds_all_that_there_is_to_know(small: Small, tmp_path: Path) -> None:
    assert run(small(), tmp_path / "run").finished
    folder = tmp_path / "run"
    check_sealed(folder / "model")
    assert (folder / "model" / "model.safetensors").stat().st_mode & 0o444 == 0o444
    assert (folder / "model" / "README.md").read_text(encoding="utf-8").startswith("---\n")
    recipe = load_recipe(folder / "recipe.yaml")
    assert recipe.train.precision == "float32" and recipe.optim.warmup_steps == 0
    assert json.loads((folder / "environment.json").read_text())["torch"] == torch.__version__
    data = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    assert data["classes"] == ["kind", "rude"] and len(data["fingerprint"]) == 64
    figures = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert figures["part"] == "test" and figures["model"]["rows"] == 10
    low, high = figures["model"]["intervals"]["macro_f1"]
    assert low <= figures["model"]["macro_f1"] <= high
    assert set(figures["difference"]["pr_auc"]) == {"value", "low", "high"}
    log = (folder / "train.log").read_text(encoding="utf-8")
    assert "TF-IDF" in log and "test: 10 rows" in log
    assert len(losses(folder)) == 6


def test_the_report_needs_nothing_but_itself(small: Small, tmp_path: Path) -> None:
    run(small(), tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    fetched = re.findall(r"<(?:script|link|img|iframe)\b|@import|url\((?!#)", page)
    assert fetched == []
    assert page.count("<svg") == 6 and "Worst mistakes" in page


def test_it_learns(small: Small, tmp_path: Path) -> None:
    run(small("train.steps=60"), tmp_path / "run")
    assert sum(losses(tmp_path / "run")[-5:]) / 5 < 0.3
    classifier = TextClassifier.load(tmp_path / "run")
    assert classifier.predict(["злой тупой день", "милый дом"]).tolist() == ["rude", "kind"]


def test_the_same_recipe_gives_the_same_weights(small: Small, tmp_path: Path) -> None:
    run(small(), tmp_path / "one")
    run(load_recipe(tmp_path / "one" / "recipe.yaml"), tmp_path / "two")
    one, two = (tmp_path / name / "model" / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_accumulated_micro_batches_equal_the_large_batch(small: Small, tmp_path: Path) -> None:
    # Without dropout, whose masks are drawn for each micro-batch anew.
    run(small("model.dropout=0"), tmp_path / "large")
    run(small("model.dropout=0", "train.micro_batch_size=5"), tmp_path / "micro")
    assert losses(tmp_path / "micro") == pytest.approx(losses(tmp_path / "large"), rel=1e-5)


def test_the_second_run_does_not_tokenize_again(
    small: Small, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(small("text.vocab_size=300"), tmp_path / "one")

    def refuse(*_: object) -> None:
        raise AssertionError("tokenized again")

    monkeypatch.setattr("igla.data.store._tokenize", refuse)
    monkeypatch.setattr("igla.data.rows._convert", refuse)
    run(small("text.vocab_size=300"), tmp_path / "two")


def test_training_stops_early_when_validation_stops_improving(small: Small, tmp_path: Path) -> None:
    changes = ("train.steps=400", "train.patience=2", "train.evaluations_per_epoch=5")
    run(small(*changes, "optim.learning_rate=1e-2"), tmp_path / "run")
    done = steps(tmp_path / "run")[-1]["step"]
    assert done < 400
    assert "stopped early" in (tmp_path / "run" / "train.log").read_text(encoding="utf-8")


def test_with_averaged_weights_the_average_is_what_is_saved(small: Small, tmp_path: Path) -> None:
    run(small("optim.ema=0.9"), tmp_path / "run")
    best = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))["step"]
    version = tmp_path / "run" / "versions" / f"step-{best:06d}"
    average = load_file(version / "ema.safetensors")["output.weight"]
    trained = load_file(version / "model.safetensors")["output.weight"]
    saved = load_file(tmp_path / "run" / "model" / "model.safetensors")["classifier.weight"]
    assert torch.equal(saved, average) and not torch.equal(saved, trained)


def test_without_a_test_part_the_figures_say_so(small: Small, tmp_path: Path) -> None:
    run(small("data.test_share=0"), tmp_path / "run")
    figures = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert figures["part"] == "validation" and "baseline" not in figures
    assert "no rows were kept" in (tmp_path / "run" / "train.log").read_text(encoding="utf-8")


def test_changed_data_are_not_resumed_with(small: Small, rows: Path, tmp_path: Path) -> None:
    copy = tmp_path / "rows.csv"
    copy.write_bytes(rows.read_bytes())
    run(small(f"data.source={copy}"), tmp_path / "run")
    with copy.open("a", encoding="utf-8") as file:
        file.write("ещё одна строка,kind\n")
    with pytest.raises(UserError, match="not those that this run began with"):
        resume(tmp_path / "run", plain_console(quiet=True))


def test_a_diverging_training_says_so(small: Small, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"diverged at step \d+ .* lower optim.learning_rate"):
        run(
            small("optim.learning_rate=1e30", "optim.optimizer=sgd", "optim.clip_norm=null"),
            tmp_path / "run",
        )


@pytest.mark.parametrize(("optimizer", "rate"), [("adam", 3e-3), ("adamw", 3e-3), ("lion", 2e-3)])
@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "focal"])
def test_every_adaptive_optimizer_lowers_every_loss(
    small: Small, tmp_path: Path, optimizer: str, rate: float, loss: str
) -> None:
    # Without decay: as a term of the gradient, which adam makes it, it drowns the loss's own.
    changes = ("train.steps=100", "optim.weight_decay=0", "data.test_share=0")
    settings = (f"optim.optimizer={optimizer}", f"optim.learning_rate={rate}")
    run(small(*changes, *settings, f"objective.loss={loss}"), tmp_path / "run")
    found = losses(tmp_path / "run")
    assert np.median(found[-20:]) < 0.3 * np.median(found[:5])


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "cosine_restarts", "wsd"])
def test_sgd_takes_the_schedules_rates(small: Small, tmp_path: Path, schedule: str) -> None:
    changes = ("optim.optimizer=sgd", "optim.learning_rate=0.1", "optim.warmup_steps=2")
    run(small(*changes, f"optim.schedule={schedule}"), tmp_path / "run")
    rates = [step["learning_rate"] for step in steps(tmp_path / "run")]
    assert rates == pytest.approx(
        [
            0.1 * learning_rate_factor(schedule, step, warmup_steps=2, total_steps=6)
            for step in range(6)
        ]
    )
    assert rates[:3] == pytest.approx([0.1 / 3, 0.2 / 3, 0.1])
