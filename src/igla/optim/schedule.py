"""Schedules of the learning rate, as pure functions of the step: there is no state to resume."""

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Course:
    """The steps after the warmup.

    done            of them, 0 … length
    length          how many there are
    total_steps     of the whole run, warmup included
    cycles          of cosine_restarts
    decay_fraction  of wsd, a share of total_steps
    """

    done: int
    length: int
    total_steps: int
    cycles: int
    decay_fraction: float


def constant(course: Course) -> float:
    """1, and so never down to the floor."""
    return 1.0


def linear(course: Course) -> float:
    """1 − p, where p = done / length."""
    return 1 - course.done / course.length


def cosine(course: Course) -> float:
    """½·(1 + cos πp), where p = done / length (Loshchilov & Hutter 2017, equation 5)."""
    return _half_cosine(course.done / course.length)


def cosine_restarts(course: Course) -> float:
    """Cosine from 1 towards 0, begun anew in each of `cycles` equal parts.

    SGDR (Loshchilov & Hutter 2017, equation 5) with T_mult = 1.
    """
    if course.done == course.length:
        return 0.0
    # In whole numbers: a quotient just under 1 would put a restart one step late.
    return _half_cosine(course.done * course.cycles % course.length / course.length)


def wsd(course: Course) -> float:
    """Warmup, stable, decay: 1, then 1 − √q over the last decay_fraction of all steps.

    q is the share done of the decay. The course is that of Hu et al. 2024 (MiniCPM); this form of
    the decay is the one that Hägele et al. 2024 found better than the linear.
    """
    decay = min(course.length, max(1, round(course.decay_fraction * course.total_steps)))
    return 1 - math.sqrt(max(0, course.done - (course.length - decay)) / decay)


def _half_cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


SCHEDULES: dict[str, Callable[[Course], float]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "cosine_restarts": cosine_restarts,
    "wsd": wsd,
}


def learning_rate_factor(
    name: str,
    step: int,
    *,
    warmup_steps: int,
    total_steps: int,
    final_factor: float = 0.0,
    cycles: int = 3,
    decay_fraction: float = 0.2,
) -> float:
    """The factor in [0, 1] on the peak learning rate at optimizer step `step`, counted from 0.

    The warmup is linear: (step + 1) / (warmup_steps + 1). The peak, 1, is first reached at step
    warmup_steps; from there the schedule runs towards final_factor, where it would be at step
    total_steps. So the rate's two ends lie just outside the run, at steps −1 and total_steps: no
    step is spent at a rate of 0, be it the first or the last.

    final_factor    the floor; the warmup begins under it, and constant does not go down to it
    cycles          of cosine_restarts
    decay_fraction  share of total_steps in which wsd goes down

    Raises ValueError for an unknown name.
    """
    if name not in SCHEDULES:
        raise ValueError(f"There is no schedule '{name}'; there are: {', '.join(SCHEDULES)}.")
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    length = max(1, total_steps - warmup_steps)
    done = min(step - warmup_steps, length)
    height = SCHEDULES[name](Course(done, length, total_steps, cycles, decay_fraction))
    return final_factor + (1 - final_factor) * height
