"""An operator's word that a policy has changed: what was said of a slice before counts no more."""

import json
import time

from igla.errors import UserError
from igla.gate.home import Home, retired_slices
from igla.gate.log import GateLog
from igla.sealed import write_durably


def retire(home: Home, log: GateLog, actor: str, name: str) -> dict[str, int]:
    """Let the frozen rows of a slice, and lessons of it from before, count no more: nothing is
    learned from them, and no copy is judged by them.

    How many rows of each frozen part these are; UserError when there is no such slice.
    """
    from igla.gate.material import load_material  # it takes scikit-learn, which takes seconds

    slices = {part: rows.slices for part, rows in vars(load_material(home.rows)).items()}
    counts = {part: int((found == name).sum()) for part, found in slices.items()}
    if not any(counts.values()) and not log.has_slice(name):
        there = ", ".join(sorted({one for found in slices.values() for one in found}))
        raise UserError(f"There is no slice {name}; the gate's rows are of {there}.")
    _write(home, retired_slices(home) | {name: time.time()})
    log.note("retired", actor, slice=name, **counts)
    return counts


def restore(home: Home, log: GateLog, actor: str, name: str) -> None:
    """Let them count again."""
    found = retired_slices(home)
    if name not in found:
        raise UserError(f"The slice {name} is not retired.")
    del found[name]
    _write(home, found)
    log.note("restored", actor, slice=name)


def _write(home: Home, retired: dict[str, float]) -> None:
    write_durably(home.retired, json.dumps(retired, ensure_ascii=False) + "\n")
