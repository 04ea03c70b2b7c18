"""A line of JSON for each request."""

import contextlib
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


def log_request(
    method: str, route: str, status: int, seconds: float, facts: Mapping[str, Any]
) -> None:
    """Write one to stderr. The route is the pattern, not the address: that may hold a key.

    facts  what the answering noted: model, version, number of inputs, the key's name, and their
           texts where the settings ask for them
    """
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "method": method,
        "route": route,
        "status": status,
        "ms": round(seconds * 1000, 2),
        **facts,
    }
    with contextlib.suppress(OSError):  # a log that cannot be written keeps nobody's answer
        print(json.dumps(line, ensure_ascii=False), file=sys.stderr, flush=True)
