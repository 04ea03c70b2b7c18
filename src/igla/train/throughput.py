"""How fast a training went, from the lines of its log."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Throughput:
    """What all steps did together; `seconds` they took, `waited` of them for data.

    peak_memory  bytes that the process held at most, up to the last step
    """

    sequences: int
    tokens: int
    seconds: float
    waited: float
    peak_memory: int

    @classmethod
    def of(cls, records: Iterable[dict[str, Any]]) -> "Throughput":
        """From the records of metrics.jsonl."""
        steps = [record for record in records if record["kind"] == "step"]
        sums = {
            name: sum(step[name] for step in steps)
            for name in ("sequences", "tokens", "seconds", "waited")
        }
        return cls(**sums, peak_memory=max(step["peak_memory"] for step in steps))

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "sequences_per_second": self.sequences / self.seconds,
            "tokens_per_second": self.tokens / self.seconds,
        }

    @property
    def said(self) -> str:
        return (
            f"{self.sequences:,} rows in {self.seconds:.0f} s of training: "
            f"{self.sequences / self.seconds:.0f} rows/s, "
            f"{self.tokens / self.seconds:,.0f} tokens/s, "
            f"{self.waited / self.seconds:.1%} of the time waiting for data; "
            f"peak memory {self.peak_memory / 1e9:.1f} GB"
        )
