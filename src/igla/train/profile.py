"""Where the time of training steps goes, on demand."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from igla.errors import UserError

TABLE, TRACE = "profile.txt", "trace.json"
# The first steps are slower than all others: memory is new, and torch may compile products.
WARMUP, STEPS = 5, 10
LONGEST_TABLE = 25


class StepProfile:
    """Records some steps of a run after its first ones; the others run as ever.

    Writes into the folder, when they are done, a table (profile.txt) and a trace (trace.json) that
    opens in Perfetto or chrome://tracing. Raises UserError for a run of one step.
    """

    def __init__(self, folder: Path, total_steps: int, say: Callable[[str], None]):
        if total_steps < 2:
            raise UserError("--profile needs two steps or more: the first one is never typical.")
        self._folder, self._say = folder, say
        # Or torch's tracer writes of its own start and stop among the run's lines.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        warmup = min(WARMUP, total_steps - 1)
        self._steps = min(STEPS, total_steps - warmup)
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self._profile = profile(
            activities=activities,
            schedule=schedule(wait=0, warmup=warmup, active=self._steps, repeat=1),
            on_trace_ready=self._write,
        )

    def step(self) -> None:
        """A training step has ended."""
        self._profile.step()

    def __enter__(self) -> "StepProfile":
        self._profile.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._profile.__exit__(*error)

    def _write(self, done: profile) -> None:
        lines = table(done.key_averages(), self._steps)
        (self._folder / TABLE).write_text("\n".join(lines) + "\n", encoding="utf-8")
        done.export_chrome_trace(str(self._folder / TRACE))
        for line in lines:
            self._say(line)
        self._say(f"profile: {self._folder / TABLE}, {self._folder / TRACE} (opens in Perfetto)")


def table(events: Any, steps: int) -> list[str]:
    """Operations by their own time, without that of those they call, in ms a step."""
    own = [(_own_milliseconds(event) / steps, event) for event in events]
    total = sum(milliseconds for milliseconds, _ in own)
    lines = [f"{'operation':44} {'ms/step':>8} {'share':>6} {'calls/step':>10}"]
    for milliseconds, event in sorted(own, key=lambda pair: -pair[0])[:LONGEST_TABLE]:
        name = event.key if len(event.key) <= 44 else event.key[:43] + "…"
        share, calls = milliseconds / total, event.count / steps
        lines.append(f"{name:44} {milliseconds:8.2f} {share:6.1%} {calls:10.1f}")
    lines.append(f"{'all':44} {total:8.2f} {1:6.1%}")
    return lines


def _own_milliseconds(event: Any) -> float:
    on_device = getattr(event, "self_device_time_total", 0)
    return float(on_device or event.self_cpu_time_total) / 1000
