"""Time and memory of one layer of a decoder against the length of the text, by what mixes tokens.

    python benchmarks/mixers.py [--lengths 1024 … 131072] [--only gla ssd] [--hidden 512]
        [--seconds 120] [--output runs/mixers]

Each length of each mixer is a process of its own: forward and backward of one layer in bf16 on one
text, the fastest of three, and the most memory it held beyond what it held before. A mixer whose
last length took longer than --seconds is not tried at longer ones, and the table says so. Writes
OUTPUT/mixers.json and .md.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LENGTHS = [1024, 4096, 16_384, 65_536, 131_072]
WINDOW = 1024
MIXERS: dict[str, dict[str, Any]] = {
    "attention": {},
    "window": dict(sliding_window=WINDOW),
    "gla": dict(mixers=("gla",)),
    "ssd": dict(mixers=("ssd",)),
}
REPEATS = 3


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--lengths", type=int, nargs="*", default=LENGTHS)
    arguments.add_argument("--only", nargs="*", choices=[*MIXERS], default=[*MIXERS])
    arguments.add_argument("--hidden", type=int, default=512)
    arguments.add_argument("--seconds", type=float, default=120)
    arguments.add_argument("--output", type=Path, default=Path("runs/mixers"))
    arguments.add_argument("--measure", nargs=2, metavar=("MIXER", "LENGTH"), help="(a process)")
    asked = arguments.parse_args()
    if asked.measure:
        print(json.dumps(measure(asked.measure[0], int(asked.measure[1]), asked.hidden)))
        return
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in asked.only}
    for name in asked.only:
        for length in asked.lengths:
            command = [sys.executable, __file__, "--hidden", str(asked.hidden)]
            command += ["--measure", name, str(length)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            figures = found[name][str(length)] = json.loads(done.stdout)
            print(f"{name} {length}: {figures['seconds']:.3f} s, {figures['mib']:.0f} MiB")
            if figures["seconds"] > asked.seconds:
                break
    asked.output.mkdir(parents=True, exist_ok=True)
    content = {"hidden": asked.hidden, "window": WINDOW, "found": found}
    (asked.output / "mixers.json").write_text(json.dumps(content, indent=1) + "\n")
    lines = table(found, asked.lengths)
    print("\n".join(["", *lines]))
    (asked.output / "mixers.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(mixer: str, length: int, hidden: int) -> dict[str, float]:
    """Seconds of forward and backward, and MiB beyond what was held before."""
    import numpy as np
    import torch

    from igla.data.batch import pack
    from igla.model.decoder import DecoderConfig, packed_causal
    from igla.model.decoder.decoder import Layer
    from igla.model.decoder.position import rotation

    heads = hidden // 64
    config = DecoderConfig(
        vocab_size=2, hidden_size=hidden, layers=1, heads=heads, kv_heads=heads, head_dim=64,
        intermediate_size=hidden * 8 // 3 // 64 * 64, max_positions=length, **MIXERS[mixer],
    )  # fmt: skip
    torch.manual_seed(0)
    layer = Layer(config, 0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    batch = pack([np.zeros(length, dtype=np.int64)])
    turn = rotation(config, batch.positions)
    x_TH = torch.randn(length, hidden).bfloat16().requires_grad_()
    before, fastest = peak_mib(), float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        layer(x_TH, turn, packed_causal(batch, config)).sum().backward()
        fastest = min(fastest, time.perf_counter() - start)
        layer.zero_grad()
        x_TH.grad = None
    return {"seconds": fastest, "mib": peak_mib() - before}


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(found: dict[str, dict[str, dict[str, float]]], lengths: list[int]) -> list[str]:
    """Seconds and MiB by length, as a Markdown table; – where a mixer was not tried."""
    lines = [f"| tokens | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    for length in lengths:
        cells = []
        for figures in found.values():
            one = figures.get(str(length))
            cells.append(f"{one['seconds']:.3f} s, {one['mib']:,.0f} MiB" if one else "–")
        lines.append(f"| {length:,} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
