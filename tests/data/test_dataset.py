"""From real and awkward files to rows in three parts."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from igla.data.dataset import Dataset, load_dataset
from igla.data.rows import duplicate_key
from igla.data.split import TEST, TRAIN, VALIDATION
from igla.errors import UserError
from igla.recipe import DataRecipe


def write(
    path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("text", "label")
) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return str(path)


def plain_rows(count: int = 60) -> list[tuple[str, ...]]:
    return [(f"text number {index}", str(index % 2)) for index in range(count)]


def said(dataset: Dataset) -> dict[str, str]:
    return {decision.name: decision.said for decision in dataset.decisions}


def counts(dataset: Dataset) -> dict[str, int]:
    return {decision.name: decision.count for decision in dataset.decisions}


def refusal(recipe: DataRecipe) -> str:
    with pytest.raises(UserError) as raised:
        load_dataset(recipe, seed=1)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_the_real_comments_with_all_their_traps(shared_data: Path) -> None:
    dataset = load_dataset(DataRecipe(source=str(shared_data / "toxic_ru.csv")), seed=1)
    found = counts(dataset)
    assert found["rows"] == 11551
    assert found["conflicts"] == 86
    assert said(dataset)["conflicts"] == "dropped: 43 texts that carry different labels (86 rows)"
    assert dataset.labels.classes == ("0", "1")
    assert sum(found[f"{part}_rows"] for part in ("train", "validation", "test")) == 11551 - 86
    sides: dict[int, int] = {}
    for part in (TRAIN, VALIDATION, TEST):
        rows = dataset.part(part)
        assert abs(dataset.labels.values[rows].mean() - 0.334) < 0.002
        for text in dataset.texts(rows):
            assert sides.setdefault(duplicate_key(text), part) == part
    assert any("\n" in text for text in dataset.texts(dataset.part(TRAIN)))


def test_the_second_reading_comes_from_the_cache(tmp_path: Path, cache: Path) -> None:
    source = write(tmp_path / "rows.csv", plain_rows())
    first = load_dataset(DataRecipe(source=source), seed=1)
    before = sorted((cache / "rows").iterdir())
    renamed = str(Path(source).rename(tmp_path / "other.csv"))
    second = load_dataset(DataRecipe(source=renamed), seed=1)
    assert sorted((cache / "rows").iterdir()) == before
    assert first.fingerprint == second.fingerprint
    assert np.array_equal(first.parts, second.parts)


def test_a_damaged_cache_is_made_anew(tmp_path: Path, cache: Path) -> None:
    source = write(tmp_path / "rows.csv", plain_rows(66))
    before = set((cache / "rows").iterdir())
    load_dataset(DataRecipe(source=source), seed=1)
    (made,) = set((cache / "rows").iterdir()) - before
    (made / "rows.arrow").write_bytes(b"torn")
    assert len(load_dataset(DataRecipe(source=source), seed=1).parts) == 66


@pytest.mark.parametrize(
    ("zero", "one", "classes"),
    [
        ("0", "1", ("0", "1")),
        ("0.0", "1.0", ("0", "1")),
        ("0", "1.0", ("0", "1")),
        ("True", "false", ("false", "true")),
        ("ham", "spam", ("ham", "spam")),
        ("-1", "10", ("-1", "10")),
    ],
)
def test_labels_may_be_spelt_in_many_ways(
    tmp_path: Path, zero: str, one: str, classes: tuple[str, str]
) -> None:
    rows = [(f"text {index}", (zero, one)[index % 2]) for index in range(40)]
    dataset = load_dataset(DataRecipe(source=write(tmp_path / "a.csv", rows)), seed=1)
    assert dataset.labels.classes == classes


def test_json_and_csv_spell_the_same_classes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [{"text": f"text {index}", "label": bool(index % 2)} for index in range(40)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert load_dataset(DataRecipe(source=str(path)), seed=1).labels.classes == ("false", "true")


def test_several_label_columns_are_multi_label(tmp_path: Path) -> None:
    rows = [
        (f"text {index}", str(index % 2), str((index % 3 == 0 and 1) or 0)) for index in range(60)
    ]
    source = write(tmp_path / "a.csv", rows, ("text", "rude", "spam"))
    dataset = load_dataset(DataRecipe(source=source, label_columns=("rude", "spam")), seed=1)
    assert dataset.labels.multi_label
    assert dataset.labels.classes == ("rude", "spam")
    assert dataset.labels.values[:4].tolist() == [[0, 1], [1, 0], [0, 0], [1, 1]]


def test_repeated_texts_stay_together_and_conflicting_ones_go(tmp_path: Path) -> None:
    rows = [*plain_rows(80), ("Text  NUMBER 0", "0"), ("text number 1", "0")]
    dataset = load_dataset(DataRecipe(source=write(tmp_path / "a.csv", rows)), seed=1)
    assert counts(dataset)["conflicts"] == 2
    assert counts(dataset)["duplicates"] == 1
    assert dataset.parts[0] == dataset.parts[80]
    assert dataset.parts[1] == dataset.parts[81] == -1


def test_rows_that_are_in_the_test_file_are_not_trained_on(tmp_path: Path) -> None:
    source = write(tmp_path / "train.csv", plain_rows(60))
    test = write(tmp_path / "test.csv", [*plain_rows(10), ("new", "1")])
    dataset = load_dataset(DataRecipe(source=source, test=test), seed=1)
    assert counts(dataset)["leaks"] == 10
    assert len(dataset.part(TEST)) == 11
    assert dataset.texts(dataset.part(TEST))[-1] == "new"
    trained = dataset.texts(dataset.part(TRAIN)) + dataset.texts(dataset.part(VALIDATION))
    assert not set(trained) & {f"text number {index}" for index in range(10)}


def test_missing_texts_and_labels_are_refused_or_counted(tmp_path: Path) -> None:
    rows = [*plain_rows(60), ("", "1"), ("   ", "0"), ("text", "nan")]
    source = write(tmp_path / "gaps.csv", rows)
    assert "gaps.csv, row 61: the text is missing (2 rows in all)" in refusal(
        DataRecipe(source=source)
    )
    dataset = load_dataset(DataRecipe(source=source, empty="drop"), seed=1)
    assert (counts(dataset)["no_text"], counts(dataset)["no_label"]) == (2, 1)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("a", "1"), ("b", "1"), ("c", "1")], "all rows carry the one label '1'"),
        ([*plain_rows(20), ("x", "odd")], "21: the label 'odd' in column 'label' occurs only once"),
        ([*plain_rows(20), ("x", "9"), ("y", "9")], "'9' in column 'label' occurs only twice"),
        ([*plain_rows(20), ("x", "0.37")], "row 21: the label 0.37 in 'label' is a fraction"),
        ([(f"t{i}", f"label {i}") for i in range(1001)], "1001 different values"),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_learned_are_refused(
    tmp_path: Path, rows: list[tuple[str, ...]], expected: str
) -> None:
    assert expected in refusal(DataRecipe(source=write(tmp_path / "odd.csv", rows)))


def test_rare_labels_may_be_left_out(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", [*plain_rows(60), ("x", "odd"), ("y", "2")])
    dataset = load_dataset(DataRecipe(source=source, rare="drop"), seed=1)
    assert dataset.labels.classes == ("0", "1")
    assert len(dataset.part(TRAIN)) == 48


def test_a_label_that_only_the_test_file_has_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "train.csv", plain_rows(60))
    test = write(tmp_path / "test.csv", [("new", "7")])
    assert "test.csv, row 1: the label '7' in column 'label' occurs never" in refusal(
        DataRecipe(source=source, test=test)
    )


def test_weights_are_read_and_checked(tmp_path: Path) -> None:
    rows = [(f"text {index}", str(index % 2), str(1 + index / 10)) for index in range(40)]
    header = ("text", "label", "weight")
    source = write(tmp_path / "a.csv", rows, header)
    dataset = load_dataset(DataRecipe(source=source, weight_column="weight"), seed=1)
    assert dataset.weights[:3].tolist() == pytest.approx([1.0, 1.1, 1.2])
    wrong = write(tmp_path / "b.csv", [*rows, ("x", "1", "-2")], header)
    assert "row 41: the weight in 'weight'" in refusal(
        DataRecipe(source=wrong, weight_column="weight")
    )


def test_a_column_of_lists_is_no_text(tmp_path: Path) -> None:
    rows = [json.dumps({"text": ["a", "b"], "label": index % 2}) for index in range(9)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(UserError, match="Column 'text' holds list.*not text"):
        load_dataset(DataRecipe(source=str(tmp_path / "a.jsonl")), seed=1)
