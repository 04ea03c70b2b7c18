"""What Prometheus is told of a gate."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from igla.gate.log.writer import Commit

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_ENTRIES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class GateMetrics:
    """The gate's figures, in the server's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.decisions = Counter(
            "igla_gate_decisions", "Decisions made.", ("action",), registry=registry
        )
        self.feedback = Counter(
            "igla_gate_feedback", "Feedback taken.", ("outcome", "source"), registry=registry
        )
        self.not_logged = Counter(
            "igla_gate_not_logged",
            "Decisions answered without a log entry, and feedback refused for want of one.",
            ("kind",),
            registry=registry,
        )
        self.commits = Histogram(
            "igla_gate_commit_seconds",
            "Seconds until a commit was on the disk.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.entries = Histogram(
            "igla_gate_commit_entries",
            "Entries of a commit.",
            buckets=_ENTRIES,
            registry=registry,
        )
        self.failures = Counter(
            "igla_gate_commit_failures", "Commits that failed.", registry=registry
        )

    def commit(self, done: Commit) -> None:
        """Of a commit, well or not."""
        if done.failed is not None:
            self.failures.inc()
            return
        self.commits.observe(done.seconds)
        self.entries.observe(done.entries)
