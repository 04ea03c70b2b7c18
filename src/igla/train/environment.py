"""What a run ran on."""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch

_LIBRARIES = ("igla", "torch", "numpy", "tokenizers", "safetensors", "pyarrow", "scikit-learn")


def environment() -> str:
    """Versions, processor, threads and git commit, as JSON."""
    content = {
        "python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "git_commit": _git_commit(),
        "command": " ".join(sys.argv),
    }
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


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
