"""Predicting files and texts: the same rows in the same order, and nothing lost."""

import csv
import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from igla.errors import UserError
from igla.estimator import TextClassifier
from igla.infer.classifier import Classifier
from igla.infer.command import predict_file, predict_texts
from igla.infer.evaluation import evaluate_file

TEXTS = ["злой дом", 'сказал: "милый", и ушёл', "тупой\nзлой дом", "", "милый добрый день"]


@pytest.fixture
def table(tmp_path: Path) -> str:
    with (tmp_path / "in.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "label"])
        writer.writerows([index, text, "mine"] for index, text in enumerate(TEXTS))
    return str(tmp_path / "in.csv")


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rows_come_back_in_order_with_a_label_and_a_score_for_each_class(
    trained: Path, table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict_file(str(trained), table, tmp_path / "out.csv", None, None)
    found = read_csv(tmp_path / "out.csv")
    assert list(found[0]) == ["id", "text", "label_input", "label", "score_kind", "score_rude"]
    assert [row["text"] for row in found] == TEXTS
    assert [row["id"] for row in found] == ["0", "1", "2", "3", "4"]
    assert [found[row]["label"] for row in (0, 1, 2, 4)] == ["rude", "kind", "rude", "kind"]
    for row in found:
        assert float(row["score_kind"]) + float(row["score_rude"]) == pytest.approx(1, abs=1e-5)
    assert "1 rows have no text" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_rows_are_scored_in_the_precision_that_is_asked_for(
    trained: Path, table: str, tmp_path: Path, precision: str
) -> None:
    model = shutil.copytree(trained / "model", tmp_path / "model")
    rule = json.loads((model / "igla.json").read_text(encoding="utf-8"))
    # It is so sure of its rows that six digits say nothing of how it computes.
    (model / "igla.json").write_text(json.dumps(rule | {"temperature": 20.0}), encoding="utf-8")
    scores = {}
    for one in ("float32", precision):
        predict_file(str(model), table, tmp_path / "out.csv", None, None, one)
        found = read_csv(tmp_path / "out.csv")
        scores[one] = np.array([float(row["score_rude"]) for row in found])
    assert 0 < np.abs(scores[precision] - scores["float32"]).max() < 0.01


def test_a_precision_that_there_is_not_is_named(trained: Path, table: str) -> None:
    with pytest.raises(UserError, match="does not compute in fp16: choose float32, bf16 or int8"):
        predict_texts(str(trained), ["злой дом"], "fp16")


def test_jsonl_holds_what_csv_holds(trained: Path, table: str, tmp_path: Path) -> None:
    predict_file(str(trained), table, tmp_path / "out.csv", None, None)
    predict_file(str(trained), table, tmp_path / "out.jsonl", None, None)
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["label"] for row in rows] == [
        row["label"] for row in read_csv(tmp_path / "out.csv")
    ]
    assert rows[2]["text"] == TEXTS[2]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("classes", ["kind", "rude", "other"], "names 3 classes, but the model has 2"),
        ("classes", None, "classes"),
        ("temperature", "warm", "temperature"),
        ("max_length", "long", "max_length"),
    ],
)
def test_a_damaged_decision_rule_is_named(
    trained: Path, tmp_path: Path, key: str, value: object, said: str
) -> None:
    shutil.copytree(trained / "model", tmp_path / "model")
    file = tmp_path / "model" / "igla.json"
    content = json.loads(file.read_text(encoding="utf-8")) | {key: value}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    with pytest.raises(UserError, match=f"igla.json.*{said}"):
        Classifier.load(tmp_path / "model")


def test_scores_do_not_depend_on_the_other_rows(trained: Path) -> None:
    classifier = Classifier.load(trained / "model")
    together = classifier.probabilities(TEXTS)
    alone = np.concatenate([classifier.probabilities([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_an_output_of_another_kind_is_refused_before_any_work(trained: Path, table: str) -> None:
    with pytest.raises(UserError, match=r"ends in none of \.csv, \.jsonl"):
        predict_file(str(trained), table, Path("out.xlsx"), None, None)


def test_a_torn_input_leaves_no_output_and_the_former_one_whole(
    trained: Path, table: str, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    out.write_text("former", encoding="utf-8")
    with Path(table).open("a", encoding="utf-8") as file:
        file.write('9,"torn')
    with pytest.raises(UserError):
        predict_file(str(trained), table, out, None, None)
    assert out.read_text(encoding="utf-8") == "former"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_texts_come_as_arguments_or_through_stdin(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    predict_texts(str(trained), ["злой дом", "милый дом"])
    given = capsys.readouterr().out
    assert [line.split("\t")[0] for line in given.splitlines()] == ["rude", "kind"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("злой дом\nмилый дом\n"))
    predict_texts(str(trained), None)
    assert capsys.readouterr().out == given


def test_evaluation_of_the_test_rows_repeats_the_runs_own_figures(
    trained: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate_file(str(trained), str(rows), None, None, None, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 96
    classifier = TextClassifier.load(trained)
    table = read_csv(rows)
    right = classifier.predict([row["text"] for row in table]) == [row["label"] for row in table]
    assert found["accuracy"] == pytest.approx(np.mean(right))


def test_evaluation_names_the_row_of_a_label_that_the_model_does_not_know(
    trained: Path, tmp_path: Path
) -> None:
    data = tmp_path / "test.csv"
    data.write_text("text,label\nодин,kind\nдва,odd\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"test\.csv, row 2: .*'odd'; it knows kind, rude"):
        evaluate_file(str(trained), str(data), None, None, None, as_json=False)


def test_evaluation_counts_the_rows_that_it_leaves_out(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "test.csv"
    data.write_text("text,label\nзлой дом,rude\n,kind\nмилый дом,\n", encoding="utf-8")
    evaluate_file(str(trained), str(data), None, None, None, as_json=False)
    out = capsys.readouterr().out
    assert "left out: 2 rows" in out and "ROC-AUC                        not defined" in out


def test_an_unfinished_run_says_how_to_finish_it(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="igla train --resume"):
        predict_texts(str(tmp_path), ["x"])
