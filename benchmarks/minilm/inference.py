"""Scoring by igla, transformers and ONNX Runtime in turn: rows/s, latency of single texts."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from igla.data.dataset import load_dataset
from igla.data.split import VALIDATION
from minilm.rows import prepare
from minilm.speed import Contestant, run
from minilm.tables import median, spread
from minilm.workers import Answer, ask

RUNTIMES = {
    "igla": {"runtime": "igla"},
    "transformers": {"runtime": "transformers", "library": "highest"},
    "transformers, float32 by oneDNN": {"runtime": "transformers", "library": "medium"},
    "ONNX Runtime float32": {"runtime": "onnx", "file": "model.onnx"},
    "ONNX Runtime dynamic INT8": {"runtime": "onnx", "file": "model.int8.onnx"},
}


def measure(
    data: Path, folder: Path, *, pairs: int, singles: int, settings: list[str]
) -> dict[str, Any]:
    """All runtimes on the validation texts, one after another, as often as there are pairs."""
    prepared = prepare(data, folder, 2, settings)
    run(Contestant("igla", precision="float32"), prepared, folder / "run", 0)
    # transformers and ONNX Runtime read the very folder that igla has written.
    model = shutil.copytree(folder / "run" / "model", folder / "model")
    ask("minilm.export_worker", {"model": str(model)})
    dataset = load_dataset(prepared.recipe.data, prepared.recipe.train.seed)
    texts = dataset.texts(dataset.part(VALIDATION))
    (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    found: dict[str, list[Answer]] = {name: [] for name in RUNTIMES}
    for _ in range(pairs):
        for name, how in RUNTIMES.items():
            place = str(folder / "run" / "model") if name == "igla" else str(model)
            job = {"model": place, "texts": str(folder / "texts.json"), "singles": singles}
            found[name].append(ask("minilm.inference_worker", job | how))
    true = np.array(found["transformers"][0]["probabilities"])
    return {
        "texts": len(texts),
        "runtimes": {
            name: {
                "rows_per_second": spread([one["rows_per_second"] for one in answers]),
                "against_transformers": spread(
                    [
                        one["rows_per_second"] / other["rows_per_second"]
                        for one, other in zip(answers, found["transformers"], strict=True)
                    ]
                ),
                "p50": median([one["p50"] for one in answers]),
                "p99": median([one["p99"] for one in answers]),
                "largest_difference": float(
                    np.abs(np.array(answers[0]["probabilities"]) - true).max()
                ),
            }
            for name, answers in found.items()
        },
    }


def lines(result: dict[str, Any]) -> list[str]:
    """The result as a Markdown table."""
    table = [
        f"{result['texts']:,} texts, from text to probability; latency of one text alone.",
        "",
        "| | rows/s | × transformers | p50 | p99 | apart from transformers by |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in result["runtimes"].items():
        ratio = one["against_transformers"]
        table.append(
            f"| {name} | {one['rows_per_second']['median']:.0f} "
            f"| {ratio['median']:.2f} [{ratio['least']:.2f}, {ratio['most']:.2f}] "
            f"| {one['p50'] * 1000:.1f} ms | {one['p99'] * 1000:.1f} ms "
            f"| {one['largest_difference']:.1e} |"
        )
    return table
