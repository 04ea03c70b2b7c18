"""Products of groups of rows, beside a loop in plain torch."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from igla.ops.grouped import grouped_linear

ROWS, EXPERTS, INPUTS, OUTPUTS = 23, 5, 18, 11
OFFSETS = [0, 7, 7, 8, 23, 23]  # two of the groups are empty, one of them the last


def tensors(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, INPUTS, generator=generator, dtype=torch.float64)
    weight = torch.randn(EXPERTS, OUTPUTS, INPUTS, generator=generator, dtype=torch.float64)
    return x.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_()


def by_loop(x_RI: Tensor, weight_EOI: Tensor) -> Tensor:
    return torch.cat([x_RI[a:b] @ weight_EOI[e].t() for e, (a, b) in enumerate(pairwise(OFFSETS))])


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2**-6)],
    ids=str,
)
def test_groups_give_what_a_loop_gives_and_so_do_their_gradients(
    dtype: torch.dtype, tolerance: float
) -> None:
    x, weight = tensors(dtype)
    ours = grouped_linear(x, weight, OFFSETS)
    theirs = by_loop(x.double(), weight.double())
    scale = theirs.abs().max().item()
    assert (ours.double() - theirs).abs().max().item() < tolerance * scale
    # The gradient of a sum is one number, expanded over all rows.
    for mine, other in zip(
        torch.autograd.grad(ours.sum(), (x, weight)),
        torch.autograd.grad(theirs.sum(), (x, weight)),
        strict=True,
    ):
        assert mine.dtype == dtype
        difference = (mine.double() - other.double()).abs().max().item()
        assert difference < tolerance * other.abs().max().item()


def test_gradients_agree_with_differences() -> None:
    x, weight = tensors(torch.float64)
    assert torch.autograd.gradcheck(lambda x, w: grouped_linear(x, w, OFFSETS), (x, weight))


def test_an_expert_without_rows_has_a_gradient_of_zeros() -> None:
    x, weight = tensors(torch.float32)
    grouped_linear(x, weight, OFFSETS).square().sum().backward()
    assert weight.grad is not None
    empty = [e for e, (start, end) in enumerate(pairwise(OFFSETS)) if start == end]
    assert not weight.grad[empty].any()
    assert all(weight.grad[e].any() for e in range(EXPERTS) if e not in empty)


def test_no_rows_at_all_give_no_rows() -> None:
    _, weight = tensors(torch.float32)
    x = torch.zeros(0, INPUTS)
    assert grouped_linear(x, weight, [0] * (EXPERTS + 1)).shape == (0, OUTPUTS)


@pytest.mark.parametrize("offsets", [[0, 23], [0, 7, 8, 7, 9, 23], [0, 7, 7, 8, 9, 22]])
def test_offsets_that_do_not_divide_the_rows_are_refused(offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="groups"):
        grouped_linear(*tensors(torch.float32), offsets)
