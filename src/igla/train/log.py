"""metrics.jsonl, and TensorBoard files beside it."""

import json
import os
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from igla.errors import UserError
from igla.sealed import write_durably
from igla.train.loop import Step

LOG = "metrics.jsonl"


class MetricsLog:
    """One JSON object a line: `{"kind": "step" | "evaluation", "step": n, …}`.

    A resumed run goes on after the step it resumes from: what the interrupted one had logged
    beyond is taken off, since it is done again.
    """

    def __init__(self, folder: Path, *, tensorboard: bool):
        self.path = folder / LOG
        self._board = _tensorboard_writer(folder / "tensorboard") if tensorboard else None

    def start_at(self, step: int, evaluated: Collection[int]) -> None:
        """Keep the steps up to `step`, and the evaluations at the steps `evaluated`."""
        kept = [
            record
            for record in read_records(self.path.parent)
            if (record["step"] <= step if record["kind"] == "step" else record["step"] in evaluated)
        ]
        write_durably(self.path, "".join(_line(record) for record in kept))
        self._file = self.path.open("a", encoding="utf-8")

    def step(self, step: Step) -> None:
        record = asdict(step)
        parts = record.pop("parts")
        self._write({"kind": "step", **record, **parts})

    def evaluation(self, record: dict[str, Any]) -> None:
        self._write({"kind": "evaluation", **record})

    def sync(self) -> None:
        """Bring all lines to the disk, as must be before a version that follows them."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def _write(self, record: dict[str, Any]) -> None:
        self._file.write(_line(record))
        self._file.flush()
        if self._board is None:
            return
        for name, value in record.items():
            if isinstance(value, float):
                self._board.add_scalar(f"{record['kind']}/{name}", value, record["step"])

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_records(folder: Path) -> list[dict[str, Any]]:
    """All whole lines of a run's log; a killed process may have left half of one."""
    path = folder / LOG
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _tensorboard_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "--tensorboard needs the tensorboard package: pip install 'igla[tensorboard]'."
        ) from None
    return SummaryWriter(str(folder))
