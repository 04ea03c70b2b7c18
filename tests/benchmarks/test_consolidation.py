"""A small run of the benchmark of forgetting."""

import json
import random
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "consolidation.py"


def test_each_weight_is_measured_on_both_texts(tmp_path: Path) -> None:
    chance = random.Random(0)
    for name in ("old", "new"):
        words = [name + ending for ending in ("а", "о", "е", "и", "у")]
        texts = [" ".join(chance.choices(words, k=20)) for _ in range(200)]
        (tmp_path / f"{name}.txt").write_text("\n\n".join(texts), encoding="utf-8")
    command = [sys.executable, str(BENCHMARK), "--output", str(tmp_path / "out"), "--seeds", "1"]
    command += ["--old", str(tmp_path / "old.txt"), "--new", str(tmp_path / "new.txt")]
    command += ["--weights", "1e3", "--", "model.layers=1", "model.hidden_size=32"]
    command += ["text.max_length=32", "train.steps=2", "train.precision=float32"]
    command += ["corpus.similar=keep", "corpus.validation_share=0.1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "consolidation.json").read_text(encoding="utf-8"))
    assert found.keys() == {"base", "0", "1000"}
    assert all(losses.keys() == {"old", "new"} for losses in found.values())
    assert found["0"]["new"]["mean"] < found["base"]["new"]["mean"]
    assert "| objective.ewc | old texts | new texts |" in done.stdout
