"""What a run ran on."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from igla.ops.native import native

_LIBRARIES = ("igla", "torch", "numpy", "tokenizers", "safetensors", "pyarrow", "scikit-learn")


# A run that goes on where one of these has changed is not bit for bit the uninterrupted one.
_BINDING = ("torch", "processor", "threads", "kernels")


def environment() -> dict[str, Any]:
    """Versions, processor, threads and git commit."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "kernels": native().reason,
        "float32_products": torch.get_float32_matmul_precision(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "git_commit": _git_commit(),
        "command": " ".join(sys.argv),
    }


def changes(former: dict[str, Any]) -> list[str]:
    """A line on each thing that makes a resumed run's last bits differ from the former's."""
    now = environment()
    return [
        f"WARNING: {name} was {former.get(name)} when the run began and is {now[name]} now: "
        "what follows will not be bit for bit the uninterrupted run"
        for name in _BINDING
        if former.get(name) != now[name]
    ]


def processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _git_commit() -> str | None:
    """Commit of the folder that igla was started in, with a mark for uncommitted changes."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
