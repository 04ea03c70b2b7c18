"""Plots of the stories, in the colours of the page that shows them."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

# Letters as letters, in the reader's font, and the same file for the same figures.
matplotlib.rcParams["svg.fonttype"] = "none"
matplotlib.rcParams["svg.hashsalt"] = "igla"


def plot_story(
    file: Path,
    points: list[dict[str, Any]],
    scratch: dict[str, float],
    shift: int,
) -> None:
    """PR-AUC of the version that serves, by how much feedback it had had."""
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    at = [point["feedback"] for point in points]
    for name, color in (("plain", "#8a8f98"), ("evasive", "#c26a1b"), ("all", "#1b6ac2")):
        values = [point["pr_auc"][name] for point in points]
        axes.step(at, values, where="post", color=color, label=f"test part, {name}")
    swapped = [after for before, after in pairwise(points) if before["serving"] != after["serving"]]
    axes.plot(
        [one["feedback"] for one in swapped],
        [one["pr_auc"]["all"] for one in swapped],
        "o", color="#1b6ac2", label="a copy took over",
    )  # fmt: skip
    axes.axhline(
        scratch["all"], color="#1b6ac2", linestyle=":", label="all: retrained on everything"
    )
    axes.axvline(shift, color="#8a8f98", linewidth=0.8, linestyle="--")
    axes.text(shift, axes.get_ylim()[0], " evasive spelling from here", va="bottom", fontsize=8)
    axes.set(xlabel="feedback", ylabel="PR-AUC")
    axes.grid(linewidth=0.4, color="#dddddd")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(file, metadata={"Date": None})


def plot_alignment(file: Path, shares: np.ndarray, every: int, change: int) -> None:
    """Share of right decisions, by how many there had been."""
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(every * (np.arange(len(shares)) + 0.5), shares, "o-", color="#1b6ac2")
    axes.axhline(0.95, color="#8a8f98", linestyle=":", linewidth=0.8)
    axes.axvline(change, color="#8a8f98", linestyle="--", linewidth=0.8)
    place = axes.get_xaxis_transform()
    axes.text(change, 0.88, "  the policy changes", transform=place, fontsize=8)
    axes.set(xlabel="decisions", ylabel=f"right, of {every}")
    axes.grid(linewidth=0.4, color="#dddddd")
    figure.savefig(file, metadata={"Date": None})
