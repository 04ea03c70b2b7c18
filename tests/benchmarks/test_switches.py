"""A small run of the benchmark of a recipe's switches."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "switches.py"
SMALL = "train.precision=float32 train.steps=4".split()


def test_each_switch_is_compared_with_the_plain_run(
    rows: Path, trained: Path, tmp_path: Path
) -> None:
    words = ["--data", str(rows), "--base", str(trained / "model"), "--output", str(tmp_path)]
    words += ["--rows", "60", "--seeds", "2", "--label", "rude", *SMALL]
    command = [sys.executable, str(BENCHMARK), *words, "--only", "fgm", "guard"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "switches.json").read_text(encoding="utf-8"))
    assert found.keys() == {"plain", "fgm", "guard"}
    for runs in found.values():
        assert len(runs) == 2
        for one in runs:
            assert all(0 <= one[name] <= 1 for name in ("macro_f1", "pr_auc", "recall of evasive"))
    recipes = [(tmp_path / "seed-1" / name / "recipe.yaml") for name in ("plain", "fgm")]
    plain, fgm = (path.read_text(encoding="utf-8").splitlines() for path in recipes)
    changed = [line.strip() for line in fgm if line not in plain]
    assert changed == ["adversary: fgm"]
    assert "| fgm | " in done.stdout
