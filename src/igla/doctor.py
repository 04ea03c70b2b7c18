"""What this machine can do, measured, and what igla chooses on it."""

import os
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from igla.cache import cache_root
from igla.ops.native import native
from igla.ops.products import Probe, probe
from igla.train.environment import processor
from igla.train.precision import choose_device, choose_precision

_INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16")


def print_findings() -> None:
    """Print a table of what was found and what follows from it."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in findings().items():
        table.add_row(name, escape(value))
    Console().print(table, highlight=False)


def findings() -> dict[str, str]:
    """What was found, by name, as text for people."""
    measured = probe()
    device = choose_device("auto")
    precision = choose_precision("auto", device)
    return {
        "processor": processor(),
        "instructions": ", ".join(_instructions()) or "none that matter here",
        "cores": f"{os.cpu_count()}; torch uses {torch.get_num_threads()} threads",
        "memory": _memory(),
        "torch": torch.__version__,
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "float32 products": _float32_products(measured),
        "bf16 products": f"{measured.bf16:.0f} GFLOP/s a core",
        "fp16": "never on a processor, where it is many times slower",
        "precision": f"{precision.name} on {device.type}: {precision.reason}",
        "operations": native().said,
        "huge pages": _huge_pages(),
        "cache": str(cache_root()),
    }


def _float32_products(measured: Probe) -> str:
    torchs = "oneDNN" if measured.onednn_is_better else "torch's default"
    text = (
        f"{measured.float32:.0f} GFLOP/s a core by torch's default, {measured.float32_onednn:.0f} "
        f"by oneDNN (its largest relative error is {measured.onednn_error:.0e})"
    )
    if measured.float32_own is None:
        return f"{text}: {torchs} is chosen"
    return f"{text}, {measured.float32_own:.0f} by igla's own, which are chosen"


def _instructions() -> list[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return [torch.backends.cpu.get_cpu_capability().lower()]
    line = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    present = set(line.split())
    return [name for name in _INSTRUCTION_SETS if name in present]


def _huge_pages() -> str:
    """What Linux does with large blocks of memory: [chosen] among what there is."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.is_file():
        return "unknown"
    text = setting.read_text(encoding="utf-8").strip()
    if "[never]" in text:
        return f"{text}; 'madvise' would make steps a little faster (as root, in {setting})"
    return text


def _memory() -> str:
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{gib:.1f} GiB"
