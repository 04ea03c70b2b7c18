"""What tests of the operations share."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def with_kernels(kernels: None) -> None:
    """All tests here are of them."""


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)
