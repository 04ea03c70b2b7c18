"""The rate of matrix products of MiniLM's shapes, forward and backward, which nothing can exceed.

Job: tokens (rows of the products), dtype (bfloat16, or float32 with a library of
torch.set_float32_matmul_precision), library.
"""

import statistics
import time

import torch

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
        for left, right in ((x, weight.t()), (dy, weight), (dy.t(), x)):
            result = left @ right
            times = []
            for _ in range(ROUNDS):
                begun = time.perf_counter()
                torch.mm(left, right, out=result)
                times.append(time.perf_counter() - begun)
            seconds += statistics.median(times)
            flops += 2 * tokens * inputs * outputs
    return {"gflops": flops / seconds / 1e9}


if __name__ == "__main__":
    answer(work)
