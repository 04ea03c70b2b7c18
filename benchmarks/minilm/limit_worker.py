"""The rate of matrix products of MiniLM's shapes, forward and backward, which no training exceeds.

Of each product it is torch's or igla's, whichever is faster.

Job: tokens (rows of the products), dtype (bfloat16, or float32 with a library of
torch.set_float32_matmul_precision), library.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from igla.ops.matmul import times, times_transposed, transposed_times
from minilm.workers import Answer, Job, answer

# (inputs, outputs) of the four linear layers of a MiniLM layer.
SHAPES = ((384, 1152), (384, 384), (384, 1536), (1536, 384))
ROUNDS = 30


def work(job: Job) -> Answer:
    torch.set_float32_matmul_precision(job["library"])
    dtype = getattr(torch, job["dtype"])
    tokens = job["tokens"]
    seconds = flops = 0.0
    for inputs, outputs in SHAPES:
        x, dy = torch.randn(tokens, inputs).to(dtype), torch.randn(tokens, outputs).to(dtype)
        weight = torch.randn(outputs, inputs).to(dtype)
        for torchs, own in (
            (partial(torch.mm, x, weight.t()), partial(times_transposed, x, weight)),
            (partial(torch.mm, dy, weight), partial(times, dy, weight)),
            (partial(torch.mm, dy.t(), x), partial(transposed_times, dy, x)),
        ):
            seconds += min(_seconds(torchs), _seconds(own))
            flops += 2 * tokens * inputs * outputs
    return {"gflops": flops / seconds / 1e9}


def _seconds(product: Callable[[], torch.Tensor]) -> float:
    product()
    found = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        product()
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


if __name__ == "__main__":
    answer(work)
