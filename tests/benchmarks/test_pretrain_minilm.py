"""A small run of the benchmark of pretraining."""

import json
import random
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "pretrain_minilm.py"


def test_pretraining(tmp_path: Path) -> None:
    chance = random.Random(0)
    documents = [
        " ".join(chance.choices("мама мыла раму и пела".split(), k=20)) for _ in range(300)
    ]
    (tmp_path / "texts.txt").write_text("\n\n".join(documents), encoding="utf-8")
    command = [sys.executable, str(BENCHMARK), "--corpus", str(tmp_path / "texts.txt")]
    command += ["--output", str(tmp_path / "out"), "--pairs", "1", "--steps", "2", "--warmup", "1"]
    command += ["train.batch_size=4", "corpus.similar=keep"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "pretraining.json").read_text(encoding="utf-8"))
    assert (tmp_path / "out" / "pretraining.md").read_text(encoding="utf-8") in done.stdout
    for one in found["contestants"].values():
        assert one["tokens_per_second"]["median"] > 0 and one["peak_memory"] > 1e8
    assert found["contestants"]["igla bf16"]["igla_against_it"]["median"] == 1
