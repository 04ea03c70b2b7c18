"""Cross-entropy over many classes, beside torch's on all logits at once."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from igla.ops import cross_entropy, native
from igla.ops.cross_entropy import head_cross_entropy, linear_cross_entropy
from igla.ops.native import Native

ROWS, WIDTH, CLASSES = 37, 24, 301


def inputs(dtype: torch.dtype, parameters: torch.dtype) -> list[Tensor]:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(ROWS, WIDTH), torch.randn(CLASSES, WIDTH), torch.randn(CLASSES)
    return [
        x.to(dtype).requires_grad_(),
        weight.to(parameters).requires_grad_(),
        bias.to(parameters).requires_grad_(),
    ]


def targets() -> Tensor:
    return torch.randint(CLASSES, (ROWS,), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("own_products", [True, False])
@pytest.mark.parametrize("rows_at_once", [1024, 37, 10])
def test_value_and_gradients_are_those_of_all_logits(
    rows_at_once: int, own_products: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_entropy, "ROWS", rows_at_once)
    monkeypatch.setattr(cross_entropy, "_FEW", 4)
    monkeypatch.setattr(cross_entropy, "are_native", lambda dtype: own_products)
    x, weight, bias = inputs(torch.float32, torch.float32)
    (3 * linear_cross_entropy(x, weight, bias, targets()).total).backward()
    exact = [tensor.detach().double().requires_grad_() for tensor in (x, weight, bias)]
    loss = F.cross_entropy(exact[0] @ exact[1].t() + exact[2], targets(), reduction="sum")
    (3 * loss).backward()
    for one, other in zip((x, weight, bias), exact, strict=True):
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_differences() -> None:
    x, weight, bias = inputs(torch.float64, torch.float64)

    def total(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return linear_cross_entropy(x[:5], weight[:9], bias[:9], targets()[:5] % 9).total

    # Of the whole operation; the slices above keep the number of differences small.
    assert torch.autograd.gradcheck(total, (x, weight, bias), atol=1e-6)


def test_bf16_is_near_float32() -> None:
    narrow = inputs(torch.bfloat16, torch.float32)
    wide = [tensor.detach().float().requires_grad_() for tensor in narrow]
    results = []
    for given in (narrow, wide):
        total = linear_cross_entropy(*given, targets()).total
        total.backward()
        results.append([total.detach(), *(tensor.grad for tensor in given)])
    for one, other in zip(*results, strict=True):
        assert one is not None and other is not None
        error = torch.linalg.vector_norm(one.float() - other)
        assert error <= 2**-6 * torch.linalg.vector_norm(other)


def test_logits_far_apart_stay_finite() -> None:
    x = torch.tensor([[300.0, -300.0]], requires_grad=True)
    weight, bias = torch.eye(2), torch.zeros(2)
    found = linear_cross_entropy(x, weight, bias, torch.tensor([1]))
    found.total.backward()
    assert found.total.item() == pytest.approx(600)
    assert x.grad is not None
    assert x.grad.tolist() == [[1, -1]]


@pytest.mark.parametrize("kernels", [True, False])
def test_draws_have_the_probabilities_of_the_softmax(
    kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernels:
        monkeypatch.setattr(native, "native", lambda: Native(None, "off"))
    torch.manual_seed(0)
    logits = torch.randn(1000) * 3
    x, weight = torch.ones(20_000, 1), logits[:, None].clone()
    drawn = linear_cross_entropy(
        x, weight, torch.zeros(1000), torch.zeros(20_000, dtype=torch.long)
    ).drawn
    shares = torch.bincount(drawn, minlength=1000) / 20_000
    p = logits.softmax(0)
    assert ((shares - p).abs() <= 5 * (p / 20_000).sqrt() + 1e-4).all()


def test_without_kernels_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for off in (False, True):
        if off:
            monkeypatch.setattr(native, "native", lambda: Native(None, "off"))
        given = inputs(torch.float32, torch.float32)
        torch.manual_seed(3)
        total, drawn = linear_cross_entropy(*given, targets())
        total.backward()
        results.append([total.detach(), drawn, *(tensor.grad for tensor in given)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernels", [True, False])
def test_rows_count_by_their_shares(kernels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernels:
        monkeypatch.setattr(native, "native", lambda: Native(None, "off"))
    torch.manual_seed(0)
    x, weight = torch.randn(1500, 8), torch.randn(30, 8)  # more rows than are held at once
    words, shares = torch.randint(30, (1500,)), torch.rand(1500)
    given = [tensor.requires_grad_() for tensor in (x, weight)]
    total = head_cross_entropy(*given, words, shares)
    gradients = torch.autograd.grad(2 * total, given)
    losses = F.cross_entropy(x @ weight.t(), words, reduction="none")
    expected = torch.autograd.grad(2 * (losses * shares).sum(), given)
    torch.testing.assert_close(total, (losses * shares).sum(), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("rows_at_once", [1024, 10])
def test_a_head_without_bias_has_the_loss_of_all_logits(
    kernels: bool, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_entropy, "ROWS", rows_at_once)
    if not kernels:
        monkeypatch.setattr(native, "native", lambda: Native(None, "off"))
    x, weight, _ = inputs(torch.float64, torch.float64)
    (3 * head_cross_entropy(x, weight, targets())).backward()
    exact = [tensor.detach().requires_grad_() for tensor in (x, weight)]
    loss = F.cross_entropy(exact[0] @ exact[1].t(), targets(), reduction="sum")
    (3 * loss).backward()
    with torch.no_grad():
        torch.testing.assert_close(head_cross_entropy(x, weight, targets()), loss)
    for one, other in zip((x, weight), exact, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_a_frozen_head_costs_no_gradient_of_its_own() -> None:
    x, weight, _ = inputs(torch.float32, torch.float32)
    head_cross_entropy(x, weight.requires_grad_(False), targets()).backward()
    assert x.grad is not None and weight.grad is None


def test_what_is_compiled_for_numbers_of_rows_comes_in_few_sizes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cross_entropy, "are_native", lambda dtype: False)
    parts = list(cross_entropy._parts(2 * 1024 + 700, torch.bfloat16))
    assert [part.stop - part.start for part in parts] == [1024, 1024, 512, 128, 60]
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
