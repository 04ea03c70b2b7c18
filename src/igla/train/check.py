"""What `igla data check` prints: what a training would read, drop, cut and split."""

import sys
import tempfile
from pathlib import Path

import numpy as np

from igla.data.split import PARTS
from igla.errors import UserError
from igla.recipe import Recipe
from igla.terminal import plain_console
from igla.train.setup import Setup, set_up

_PERCENTILES = (5, 25, 50, 75, 95, 99, 100)


def check_data(recipe: Recipe) -> None:
    """Print every decision about the data; exit status 2 if a training would refuse them."""
    console = plain_console()
    lenient = recipe.replace(data__empty="drop", data__rare="drop")
    with tempfile.TemporaryDirectory(prefix="igla-check-") as folder:
        lines: list[str] = []
        refusal = None
        try:
            setup = set_up(recipe, Path(folder), lines.append)
        except UserError as error:
            refusal, lines = str(error), []
            # Once more without what is refused, to show the rest as well; this may refuse, too.
            setup = set_up(lenient, Path(folder), lines.append)
        for line in (*lines, *_lengths(setup)):
            console.print(line)
    if refusal is not None:
        print(f"igla: a training would refuse: {refusal}", file=sys.stderr)
        sys.exit(2)
    console.print("ready to train")


def _lengths(setup: Setup) -> list[str]:
    rows = np.concatenate([setup.rows(part) for part in range(len(PARTS))])
    lengths = setup.store.lengths[rows] + setup.store.lost[rows]
    values = np.percentile(lengths, _PERCENTILES)
    points = ", ".join(
        f"{percent} %: {value:.0f}" for percent, value in zip(_PERCENTILES, values, strict=True)
    )
    return [f"tokens a text (mean {lengths.mean():.1f}): {points}"]
