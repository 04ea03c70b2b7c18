"""What a person sees of a running training: a live bar in a terminal, plain lines elsewhere."""

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from igla.train.loop import Step

# Seconds between plain lines.
LINE_EVERY = 10.0
# Weight of the newest step in the figures shown, which would jump about otherwise.
NEWEST = 0.1


class TrainingProgress:
    """Shows smoothed loss, learning rate, tokens/s and the time left."""

    def __init__(self, console: Console, total_steps: int, first_step: int):
        self._console = console
        self._total = total_steps
        self._first = first_step
        self._loss: float | None = None
        self._rate = 0.0
        self._begun = self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(bar_width=16),
            TextColumn("{task.description}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("", total=total_steps, completed=first_step)

    def step(self, step: Step) -> None:
        rate = step.tokens / step.seconds
        if self._loss is None:
            self._loss, self._rate = step.loss, rate
        self._loss += NEWEST * (step.loss - self._loss)
        self._rate += NEWEST * (rate - self._rate)
        text = f"loss {self._loss:.4f}  lr {step.learning_rate:.2e}  {self._rate:,.0f} tokens/s"
        if self._console.is_terminal:
            self._bar.update(self._task, completed=step.step, description=text)
            return
        now = time.monotonic()
        if now - self._last_line >= LINE_EVERY or step.step == self._total:
            self._last_line = now
            done = step.step - self._first
            left = (now - self._begun) / done * (self._total - step.step)
            self._console.print(f"step {step.step}/{self._total}  {text}  {left:.0f} s left")

    def __enter__(self) -> "TrainingProgress":
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()
