"""Products of a mixture's experts: three ways to compute them, in the same run.

    python benchmarks/experts.py [--tokens 4096] [--experts 8] [--hidden 512] [--inner 1408]
        [--precision bf16] [--repeats 5] [--output runs/experts]

Forward and backward of one grouped product for rows that are shared evenly by the experts, and for
rows of which one expert has half. sorted: igla's products, one for each expert (ops.grouped).
padded: one batched product, each expert's rows filled up to those of the busiest. torch: its own
torch._grouped_mm. The ways take turns, and the fastest of the repeats counts. Writes
OUTPUT/experts.json and .md.
"""

import argparse
import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from igla.ops.grouped import grouped_linear

Way = Callable[[Tensor, Tensor, list[int]], Tensor]


def by_padding(x_RI: Tensor, weight_EOI: Tensor, offsets: list[int]) -> Tensor:
    groups = [x_RI[start:end] for start, end in pairwise(offsets)]
    padded_ERI = torch.nn.utils.rnn.pad_sequence(groups, batch_first=True)
    y_ERO = torch.bmm(padded_ERI, weight_EOI.to(x_RI.dtype).transpose(1, 2))
    return torch.cat([y[: len(group)] for y, group in zip(y_ERO, groups, strict=True)])


def by_torch(x_RI: Tensor, weight_EOI: Tensor, offsets: list[int]) -> Tensor:
    ends_E = torch.tensor(offsets[1:], dtype=torch.int32)
    y_RO: Tensor = torch._grouped_mm(x_RI, weight_EOI.to(x_RI.dtype).transpose(1, 2), offs=ends_E)
    return y_RO


WAYS: dict[str, Way] = {"sorted": grouped_linear, "padded": by_padding, "torch": by_torch}


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--tokens", type=int, default=4096, help="rows of all experts")
    arguments.add_argument("--experts", type=int, default=8)
    arguments.add_argument("--hidden", type=int, default=512)
    arguments.add_argument("--inner", type=int, default=1408)
    arguments.add_argument("--precision", choices=["float32", "bf16"], default="bf16")
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--output", type=Path, default=Path("runs/experts"))
    asked = arguments.parse_args()
    dtype = torch.bfloat16 if asked.precision == "bf16" else torch.float32
    torch.manual_seed(0)
    weight = torch.randn(asked.experts, asked.inner, asked.hidden).mul_(0.02).requires_grad_()
    weight.grad_dtype = None
    x = torch.randn(asked.tokens, asked.hidden, dtype=dtype).requires_grad_()
    found = {}
    for load, offsets in loads(asked.tokens, asked.experts).items():
        gradient = torch.randn(asked.tokens, asked.inner, dtype=dtype)
        fastest = dict.fromkeys(WAYS, float("inf"))
        for _ in range(asked.repeats):
            for name, way in WAYS.items():
                x.grad = weight.grad = None
                start = time.perf_counter()
                way(x, weight, offsets).backward(gradient)
                fastest[name] = min(fastest[name], time.perf_counter() - start)
        found[load] = fastest
    asked.output.mkdir(parents=True, exist_ok=True)
    content = {name: value for name, value in vars(asked).items() if name != "output"}
    (asked.output / "experts.json").write_text(json.dumps(content | {"seconds": found}) + "\n")
    lines = [f"| rows | {' | '.join(WAYS)} |", "|---" * (len(WAYS) + 1) + "|"]
    for load, fastest in found.items():
        lines.append(f"| {load} | {' | '.join(f'{t * 1e3:.1f} ms' for t in fastest.values())} |")
    print("\n".join(lines))
    (asked.output / "experts.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def loads(rows: int, experts: int) -> dict[str, list[int]]:
    """Offsets of rows that are shared evenly, and of rows of which the first expert has half."""
    even = [rows * e // experts for e in range(experts + 1)]
    half = rows // 2
    uneven = [0, *(half + (rows - half) * e // (experts - 1) for e in range(experts))]
    return {"even": even, "half of them one expert's": uneven}


if __name__ == "__main__":
    main()
