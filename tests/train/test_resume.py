"""Whatever ends a run, resuming it gives the uninterrupted run's losses and weights."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from igla.errors import UserError
from igla.recipe import Recipe
from igla.terminal import plain_console
from igla.train import run as run_module
from igla.train.loop import Step, fit
from igla.train.run import resume, train

Small = Callable[..., Recipe]
QUIET = plain_console(quiet=True)
ACCUMULATED = ("train.micro_batch_size=5", "train.save_steps=1")
# Late rows of the embedding with sparse gradients; the same in bf16; neither, but an average.
KINDS = {"float32": (), "bf16": ("train.precision=bf16",), "average": ("optim.ema=0.9",)}


def losses(folder: Path) -> list[tuple[int, float, float]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return [(r["step"], r["loss"], r["gradient_norm"]) for r in records if r["kind"] == "step"]


def evaluations(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for line in lines if (record := json.loads(line))["kind"] == "evaluation"]


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


@pytest.fixture
def whole(small: Small, tmp_path: Path) -> Path:
    """The uninterrupted run."""
    train(small(*ACCUMULATED), tmp_path / "whole", QUIET)
    return tmp_path / "whole"


def interrupted(
    recipe: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch, step: int, micro_step: int
) -> None:
    """Run until so many steps and micro-batches are done, and stop as two signals would."""

    def until(*arguments: Any) -> Iterator[Step]:
        state, *others, _ = arguments
        stop = lambda: (state.step, state.micro_step) == (step, micro_step)  # noqa: E731
        for event in fit(state, *others, stop):
            if (event.step, 0) == (step, micro_step):
                os.kill(os.getpid(), signal.SIGINT)
            yield event
        if state.micro_step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(run_module, "fit", until)
    assert not train(recipe, folder, QUIET).finished
    monkeypatch.setattr(run_module, "fit", fit)


@pytest.mark.parametrize("kind", KINDS)
def test_resume_also_inside_an_accumulated_step_is_bit_exact(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    recipe, whole = small(*ACCUMULATED, *KINDS[kind]), tmp_path / "whole"
    train(recipe, whole, QUIET)
    for step, micro_step in [(1, 0), (3, 0), (5, 0), (0, 1), (2, 3), (5, 2)]:
        folder = tmp_path / f"run-{step}-{micro_step}"
        interrupted(recipe, folder, monkeypatch, step, micro_step)
        newest = max((folder / "versions").iterdir()).name
        assert newest == f"step-{step:06d}" + (f".{micro_step:03d}" if micro_step else "")
        assert not (folder / "model").exists()
        assert resume(folder, QUIET).finished
        assert losses(folder) == losses(whole)
        assert evaluations(folder) == evaluations(whole)
        assert weights(folder) == weights(whole)


def test_a_damaged_version_is_refused_by_name_and_the_one_before_is_used(
    small: Small, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    interrupted(small(*ACCUMULATED), folder, monkeypatch, 4, 0)
    newest = folder / "versions" / "step-000004" / "optimizer.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    assert resume(folder, QUIET).finished
    log = (folder / "train.log").read_text(encoding="utf-8")
    assert "refused step-000004: " in log and "optimizer.safetensors is damaged" in log
    assert "resuming from step-000003" in log
    assert losses(folder) == losses(whole)
    assert weights(folder) == weights(whole)


def test_killed_between_saving_and_validating_the_validation_is_made_up_for(
    small: Small, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"

    def killed(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "_evaluate", killed)
    with pytest.raises(KeyboardInterrupt):
        train(small(*ACCUMULATED), folder, QUIET)
    monkeypatch.undo()
    assert resume(folder, QUIET).finished
    assert evaluations(folder) == evaluations(whole)
    assert weights(folder) == weights(whole)


def test_resuming_a_finished_run_changes_nothing(whole: Path) -> None:
    before, figures = weights(whole), (whole / "metrics.json").read_text(encoding="utf-8")
    assert resume(whole, QUIET).finished
    assert weights(whole) == before
    assert (whole / "metrics.json").read_text(encoding="utf-8") == figures


def test_only_the_last_versions_and_the_best_are_kept(whole: Path) -> None:
    kept = sorted(path.name for path in (whole / "versions").iterdir())
    best = min(evaluations(whole), key=lambda record: record["calibrated_loss"])["step"]
    assert kept == sorted({"step-000005", "step-000006", f"step-{int(best):06d}"})


def test_what_is_not_a_version_is_left_alone(small: Small, tmp_path: Path) -> None:
    mine = tmp_path / "run" / "versions" / "step-notes"
    mine.mkdir(parents=True)
    (mine / "notes.txt").write_text("mine", encoding="utf-8")
    train(small(*ACCUMULATED), tmp_path / "run", QUIET)
    assert (mine / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_two_processes_do_not_work_on_one_run(small: Small, tmp_path: Path) -> None:
    with run_module.locked(tmp_path), pytest.raises(UserError, match="at work on"):
        train(small(), tmp_path, QUIET)


def test_other_threads_than_before_are_said_when_resuming(
    small: Small, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = whole / "environment.json"
    content = json.loads(noted.read_text(encoding="utf-8"))
    noted.write_text(json.dumps(content | {"threads": 99}), encoding="utf-8")
    resume(whole, QUIET)
    assert "WARNING: threads was 99" in (whole / "train.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_says_how_to_resume(
    small: Small, tmp_path: Path, number: signal.Signals
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(small("train.steps=100000").to_yaml(), encoding="utf-8")
    command = [sys.executable, "-m", "igla", "train", str(recipe), "-o", str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step "):
                break
        process.send_signal(number)
        rest = process.stdout.read()
        assert process.wait(timeout=60) == 130
    assert f"go on with: igla train --resume {tmp_path / 'run'}" in rest
    done = losses(tmp_path / "run")[-1][0]
    assert (tmp_path / "run" / "versions" / f"step-{done:06d}").is_dir()


def test_every_resume_after_kill_9_succeeds(tmp_path: Path) -> None:
    benchmark = Path(__file__).parents[2] / "benchmarks" / "kill_and_resume.py"
    command = [sys.executable, str(benchmark), "--kills", "12"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads(result.stdout)["killed"] == 12
