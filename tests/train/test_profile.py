"""The profile on demand, and the figures of speed at the end of a run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from igla.recipe import Recipe
from igla.terminal import plain_console
from igla.train.memory import peak_memory
from igla.train.profile import TABLE, TRACE
from igla.train.run import Extras, train
from igla.train.throughput import Throughput


@pytest.mark.parametrize("steps", [2, 3, 20])
def test_a_profile_holds_a_table_and_a_trace(
    small: Callable[..., Recipe], tmp_path: Path, steps: int
) -> None:
    run = tmp_path / "run"
    train(small(f"train.steps={steps}"), run, plain_console(quiet=True), Extras(profile=True))
    lines = (run / TABLE).read_text(encoding="utf-8").splitlines()
    shares = {line[:44].strip(): line.split()[-2:] for line in lines[1:-1]}
    assert {"forward", "backward", "optimizer"} <= shares.keys()
    assert lines[-1].split()[0] == "all"
    events = json.loads((run / TRACE).read_text(encoding="utf-8"))["traceEvents"]
    # Of each profiled step its parts, no fewer and no more.
    profiled = max(1, min(10, steps - min(5, steps - 1)))
    assert sum(event.get("name") == "optimizer" for event in events) == profiled
    assert "profile:" in (run / "train.log").read_text(encoding="utf-8")


def test_throughput_is_the_sum_of_all_steps() -> None:
    step = {"kind": "step", "sequences": 4, "tokens": 100, "seconds": 0.5, "waited": 0.1}
    step["peak_memory"] = 10**9
    found = Throughput.of([step, {"kind": "evaluation", "step": 1}, step])
    assert (found.sequences, found.tokens, found.seconds, found.waited) == (8, 200, 1.0, 0.2)
    assert found.as_json()["tokens_per_second"] == 200
    assert "8 rows/s, 200 tokens/s, 20.0% of the time waiting for data" in found.said
    assert found.peak_memory == 10**9


def test_the_speed_is_said_and_kept(small: Callable[..., Recipe], tmp_path: Path) -> None:
    train(small(), tmp_path / "run", plain_console(quiet=True))
    assert 1e8 < peak_memory() < 1e12
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["training"]["sequences"] == 5 * 16 + 76 % 16  # an epoch of 76 rows, and one step
    assert "rows/s" in (tmp_path / "run" / "train.log").read_text(encoding="utf-8")
    assert "tokens/s" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_batches_of_so_many_tokens_train(small: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = small("train.batch_tokens=200", "train.steps=null", "train.epochs=1")
    train(recipe, tmp_path / "run", plain_console(quiet=True))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [record for line in lines if (record := json.loads(line))["kind"] == "step"]
    assert sum(step["sequences"] for step in steps) == 76  # each row of the train part, once
    assert all(150 < step["tokens"] < 280 for step in steps)
