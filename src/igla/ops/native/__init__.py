"""The compiled kernels: C++ compiled on this machine when first needed, then read from the cache.

A wheel for every processor would have to leave out what the processor at hand is good at; compiling
takes some seconds, once. Where there is no compiler the operations run as plain torch code, slower.
`IGLA_KERNELS=off` asks for that.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igla.cache import cache_root

SOURCES = Path(__file__).parent
FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math"),
    *("-fopenmp", "-fPIC", "-fvisibility=hidden", "-w"),
)
SUFFIXES = {
    torch.float32: "f32",
    torch.float64: "f64",
    torch.bfloat16: "bf16",
    torch.int8: "int8",
}
# Sets of one, as activations must be of one type.
_TYPES_KNOWN = [{dtype} for dtype in (torch.float32, torch.float64, torch.bfloat16)]
_TYPES: dict[str, "type[ctypes._SimpleCData[Any]]"] = {
    "p": ctypes.c_void_p,
    "i": ctypes.c_int64,
    "u": ctypes.c_uint64,
    "d": ctypes.c_double,
}


@dataclass(frozen=True)
class Native:
    """The loaded library, or None and the reason why."""

    library: ctypes.CDLL | None
    reason: str

    @property
    def said(self) -> str:
        """What operations run as, for people."""
        return self.reason if self.library else f"plain torch, which is slower: {self.reason}"


class Kernel:
    """One function of the library, once for each type of its activations.

    arguments  a letter for each: p tensor, address or None, i integer, u seed, d float
    returns    the letter of its result, if it has one
    """

    def __init__(self, name: str, arguments: str, returns: str | None = None):
        self.name = name
        self.arguments = arguments
        self.returns = returns
        self._functions: dict[torch.dtype | None, Callable[..., Any]] = {}

    def __call__(self, dtype: torch.dtype | None, *values: Tensor | float | None) -> Any:
        """Run the kernel for a type, or the only one there is (None)."""
        function = self._functions.get(dtype) or self._find(dtype)
        addressed = [value.data_ptr() if isinstance(value, Tensor) else value for value in values]
        return function(*addressed)

    def exists(self, dtype: torch.dtype) -> bool:
        """Whether it has been compiled for a type; some are for some processors only."""
        library = native().library
        return library is not None and hasattr(library, self._symbol(dtype))

    def _find(self, dtype: torch.dtype | None) -> Callable[..., Any]:
        library = native().library
        assert library is not None
        function = library[self._symbol(dtype)]
        function.argtypes = [_TYPES[letter] for letter in self.arguments]
        function.restype = None if self.returns is None else _TYPES[self.returns]
        self._functions[dtype] = function
        return function

    def _symbol(self, dtype: torch.dtype | None) -> str:
        return self.name if dtype is None else f"{self.name}_{SUFFIXES[dtype]}"


def runs(*activations: Tensor, parameters: Sequence[Tensor] = ()) -> bool:
    """Whether kernels take these: activations on the processor, of a type that they know, and
    parameters as they read them, contiguous and in the type that they sum in."""
    return (
        all(tensor.device.type == "cpu" for tensor in activations)
        and {tensor.dtype for tensor in activations} in _TYPES_KNOWN
        and all(
            parameter.dtype == accumulator(activations[0].dtype) and parameter.is_contiguous()
            for parameter in parameters
        )
        and not torch.compiler.is_exporting()  # a tracer cannot look into a kernel
        and native().library is not None
    )


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The type that kernels sum in, and keep parameters and statistics in."""
    return torch.float32 if dtype == torch.bfloat16 else dtype


def draw_seed(dropout: float) -> int:
    """A seed for a kernel's dropout, from torch's generator; 0, undrawn, where there is none."""
    return int(torch.randint(2**62, (), dtype=torch.int64)) if dropout else 0


@cache
def native() -> Native:
    """Compile if need be, and load."""
    if os.environ.get("IGLA_KERNELS", "on") == "off":
        return Native(None, "IGLA_KERNELS=off")
    asked = shlex.split(os.environ.get("CXX") or "g++")
    found = shutil.which(asked[0])
    if found is None:
        return Native(None, f"there is no C++ compiler {asked[0]} (apt install g++, or set CXX)")
    compiler = [found, *asked[1:]]
    try:
        name = f"kernels-{_key(compiler)}.so"
        how = f"compiled by {Path(found).name} ({Path(name).stem})"
        try:
            return Native(_cached(compiler, cache_root() / name), how)
        except (OSError, RuntimeError) as error:
            with tempfile.TemporaryDirectory() as folder:
                library = _cached(compiler, Path(folder) / name)
            return Native(library, f"{how}, for this process alone: {error}")
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["no message"]
        telling = next((line for line in lines if "error" in line), lines[0])
        return Native(None, f"{found} failed: {telling}")
    except (OSError, RuntimeError) as error:
        return Native(None, f"the kernels cannot be compiled or read: {error}")


def _cached(compiler: Sequence[str], target: Path) -> ctypes.CDLL:
    if not target.is_file():
        _compile(compiler, target)
    try:
        return ctypes.CDLL(str(target))
    except OSError:  # damaged: once more
        _compile(compiler, target)
        return ctypes.CDLL(str(target))


def _compile(compiler: Sequence[str], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        sources = sorted(SOURCES.glob("*.cpp"))
        objects = [Path(folder) / f"{source.stem}.o" for source in sources]
        with ThreadPoolExecutor() as pool:
            list(pool.map(partial(_object, compiler), sources, objects))
        library = Path(folder) / "kernels.so"
        _run([*compiler, "-shared", "-fopenmp", *map(str, objects), "-o", str(library)])
        with library.open("rb") as file:
            os.fsync(file.fileno())  # half a library would kill every process that loads it
        # By one rename: another process may be compiling the same.
        library.rename(target)


def _object(compiler: Sequence[str], source: Path, target: Path) -> None:
    _run([*compiler, *FLAGS, "-c", str(source), "-o", str(target)])


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, errors="replace")
    return done.stdout


def _key(compiler: Sequence[str]) -> str:
    """What the compiled code hangs on: sources, compiler with its options, and processor."""
    version = _run([*compiler, "--version"])
    if "clang" in version:
        raise RuntimeError("this is clang, and they are written for GCC; set CXX")
    parts = [*compiler, version, *FLAGS, platform.machine(), _processor()]
    parts += [path.read_text(encoding="utf-8") for path in sorted(SOURCES.glob("*.[ch]*"))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
