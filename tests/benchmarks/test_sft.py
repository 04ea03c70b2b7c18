"""A small run of the benchmark of supervised fine-tuning."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "sft.py"


def test_each_way_to_tune_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    words = "train.steps=2 train.precision=float32 --methods full lora --seeds 1".split()
    words += f"--output {tmp_path} --texts 600 --train 60 --test 12".split()
    done = subprocess.run([sys.executable, str(BENCHMARK), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "sft.json").read_text(encoding="utf-8"))
    assert found.keys() == {"full", "lora"}
    for runs in found.values():
        (one,) = runs
        assert 0 <= one["exact_match"] <= 1 and one["peak_memory"] > 1e8
        assert one["validation_loss"] < 7
    assert found["lora"][0]["saved_bytes"] < found["full"][0]["saved_bytes"]
    assert "| lora | " in (tmp_path / "sft.md").read_text(encoding="utf-8")
