"""What tests of the operations share."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from igla.ops import native


@pytest.fixture(autouse=True, scope="session")
def kernels(cache: Path) -> None:
    """Without a compiler there is nothing to test; with one the kernels must compile."""
    if not shutil.which("g++"):
        pytest.skip("there is no C++ compiler on this machine")
    loaded = native.native()
    assert loaded.library is not None, loaded.reason


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)
