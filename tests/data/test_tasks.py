"""Instructions that are made up: right, seeded, held out, strictly marked."""

import json
import sys
from pathlib import Path

import pytest

from igla.cli import main
from igla.data.tasks import KINDS, Example, examples, is_held_out, read_tasks
from igla.errors import UserError


def by_kind(kind: str) -> list[Example]:
    return [one for one in examples(3, 300) if one.kind == kind]


def test_a_seed_gives_the_same_examples_and_another_seed_others() -> None:
    assert examples(1, 60) == examples(1, 60)
    assert set(examples(1, 60)) != set(examples(2, 60))
    kinds = [one.kind for one in examples(1, 60)]
    assert {kind: kinds.count(kind) for kind in KINDS} == dict.fromkeys(KINDS, 10)


def test_no_prompt_is_trained_on_and_tested_with_whatever_the_seeds() -> None:
    trained = {one.prompt for seed in (1, 2) for one in examples(seed, 600)}
    tested = {one.prompt for seed in (1, 3) for one in examples(seed, 120, held_out=True)}
    assert not trained & tested
    assert all(is_held_out(prompt) for prompt in tested)
    assert len({one.prompt for one in examples(1, 600)}) == 600


def test_there_are_no_more_than_there_are() -> None:
    with pytest.raises(UserError, match="Of template there are not so many different prompts"):
        examples(1, 150_000)


def test_sums_sorting_and_counts_are_right() -> None:
    for one in by_kind("arithmetic"):
        left, sign, right = one.prompt.removeprefix("Compute ").removesuffix(".").split()
        expected = int(left) + int(right) if sign == "+" else int(left) - int(right)
        assert one.answer == str(expected)
    for one in by_kind("sorting"):
        order, numbers = one.prompt.split(": ")
        values = sorted(map(int, numbers.split()), reverse="largest to smallest" in order)
        assert one.answer == " ".join(map(str, values))
    for one in by_kind("counting"):
        letter, text = one.prompt.removesuffix("?").split(" are in ")
        assert one.answer == str(sum(each == letter[-1] for each in text))


def test_copies_json_and_templates_hold_what_they_are_told() -> None:
    for one in by_kind("copying"):
        assert one.prompt == f"Repeat: {one.answer}"
    for one in by_kind("json"):
        shape, told = one.prompt.split(" from: ")
        found = json.loads(one.answer)
        assert [f'"{key}": ?' in shape for key in found] == [True] * shape.count("?")
        assert all(str(value) in told for value in found.values())
    for one in by_kind("template"):
        template, given = one.prompt.removeprefix("Fill in «").removesuffix(".").split("» with ")
        values = dict(pair.split("=") for pair in given.split(", "))
        assert one.answer == template.format(**values)


@pytest.mark.parametrize(
    ("kind", "answer", "given", "right"),
    [
        ("arithmetic", "42", " 42\n", True),
        ("arithmetic", "42", "42.", False),
        ("arithmetic", "42", "It is 42", False),
        ("arithmetic", "42", "042", False),
        ("copying", "ab cd", "ab  cd", False),
        ("json", '{"age": 31, "name": "Anna"}', '{"name":"Anna",\n"age":31}', True),
        ("json", '{"age": 31}', '{"age": "31"}', False),
        ("json", '{"age": 1}', '{"age": true}', False),
        ("json", '{"age": 1}', '{"age": 1.0}', False),
        ("json", '{"age": 31}', '{"age": 31, "town": "Omsk"}', False),
        ("json", '{"age": 31}', '{"age": 30, "age": 31}', False),
        ("json", '{"age": 31}', '{"age": 31} That is it', False),
        ("json", '{"age": 31}', "", False),
    ],
)
def test_answers_are_marked_strictly(kind: str, answer: str, given: str, right: bool) -> None:
    assert Example(kind, "?", answer).is_right(given) is right


def test_every_right_answer_is_right() -> None:
    assert all(one.is_right(one.answer) for one in examples(1, 300))


def test_make_tasks_writes_conversations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = f"igla data make-tasks {tmp_path} --train 30 --test 12 --seed 5".split()
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match="^0$"):
        main()
    assert list(read_tasks(tmp_path / "train.jsonl")) == examples(5, 30)
    assert list(read_tasks(tmp_path / "test.jsonl")) == examples(5, 12, held_out=True)
    with pytest.raises(SystemExit, match="^2$"):
        main()
    (tmp_path / "train.jsonl").write_text('{"kind": "json"}\n', encoding="utf-8")
    with pytest.raises(UserError, match="line 1: this is no example"):
        list(read_tasks(tmp_path / "train.jsonl"))
