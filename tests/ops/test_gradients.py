"""Every operation beside plain torch code, and its gradients beside differences."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from igla.ops.attention import AttentionLayout, attend, attend_once
from igla.ops.dropout import dropout
from igla.ops.feed_forward import feed_forward
from igla.ops.gated import gated
from igla.ops.linear import linear, project_first
from igla.ops.norm import add_norm
from igla.ops.rms_norm import add_rms_norm, rms_norm
from igla.ops.rotation import rotate

# Widths of one vector and a rest; three sequences, then padding.
TOKENS, HEADS, WIDTH, HIDDEN, INNER = 13, 2, 9, 18, 21
STARTS = [0, 7, 8, 11]
LAYOUT = AttentionLayout(torch.tensor(STARTS), 7)
FIRST = torch.tensor(STARTS[:-1])
EPSILON = 1e-5
# Of a rotation: each token's angles, and a factor as YaRN has it.
ANGLES = torch.arange(TOKENS)[:, None].double() * torch.logspace(0, -2, WIDTH).double()
SCALES = torch.full_like(ANGLES, 1.2)

# A number rounded to bf16, which has 8 bits, moves by at most 2⁻⁸ of itself, and by 0.4·2⁻⁸ in the
# root mean square. Four or five in a row (weight, product, activation, result) stay under twice
# 2⁻⁸.
BF16 = 2 * 2**-8

Shapes = list[tuple[int, ...]]


class Operation(NamedTuple):
    """An operation and the same in plain torch, of activations and then parameters."""

    run: Callable[..., Tensor]
    plain: Callable[..., Tensor]
    activations: Shapes
    parameters: Shapes


def attention(q_QND: Tensor, k_SND: Tensor, v_SND: Tensor) -> Tensor:
    scores_NQS = torch.einsum("qnd,snd->nqs", q_QND, k_SND) / q_QND.shape[-1] ** 0.5
    return torch.einsum("nqs,snd->qnd", scores_NQS.softmax(-1), v_SND).flatten(1)


def plain_attend(qkv_T3ND: Tensor, bias_3ND: Tensor) -> Tensor:
    qkv_T3ND = qkv_T3ND + bias_3ND
    results = [attention(*qkv_T3ND[a:b].unbind(1)) for a, b in pairwise(STARTS)]
    return F.pad(torch.cat(results), (0, 0, 0, TOKENS - STARTS[-1]))


def plain_attend_once(q_BND: Tensor, kv_T2ND: Tensor, bias_3ND: Tensor) -> Tensor:
    q_BND, kv_T2ND = q_BND + bias_3ND[0], kv_T2ND + bias_3ND[1:]
    parts = [kv_T2ND[a:b].unbind(1) for a, b in pairwise(STARTS)]
    return torch.cat([attention(q[None], *kv) for q, kv in zip(q_BND, parts, strict=True)])


def plain_add_norm(x: Tensor, residual: Tensor, x_bias: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.layer_norm(residual + x + x_bias, w.shape, w, b, EPSILON)


def plain_feed_forward(
    x: Tensor, up: Tensor, up_bias: Tensor, down: Tensor, approximate: str
) -> Tensor:
    return F.linear(F.gelu(F.linear(x, up, up_bias), approximate=approximate), down)


def plain_project_first(x: Tensor, weight: Tensor) -> Tensor:
    q, kv = F.linear(x[FIRST], weight[:HIDDEN]), F.linear(x, weight[HIDDEN:])
    return torch.cat([q.flatten(), kv.flatten()])


def run_add_norm(
    x: Tensor, residual: Tensor, x_bias: Tensor, w: Tensor, b: Tensor, p: float = 0.0
) -> Tensor:
    return add_norm(x, x_bias, residual, w, b, EPSILON, p)


def run_project_first(x: Tensor, weight: Tensor) -> Tensor:
    return torch.cat([part.flatten() for part in project_first(x, FIRST, weight)])


def plain_rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, EPSILON)


def plain_add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor) -> Tensor:
    return torch.cat([x + residual, plain_rms_norm(x + residual, weight)])


def plain_rotate(x_TND: Tensor) -> Tensor:
    """As products of complex numbers."""
    left, right = x_TND.chunk(2, dim=-1)
    turned = torch.complex(left.double(), right.double()) * torch.polar(SCALES, ANGLES)[:, None]
    return torch.cat([turned.real, turned.imag], dim=-1).to(x_TND.dtype)


def plain_gated(gate: Tensor, up: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    return function(gate) * up


OPERATIONS = {
    "rms_norm": Operation(
        partial(rms_norm, epsilon=EPSILON), plain_rms_norm, [(TOKENS, HIDDEN)], [(HIDDEN,)]
    ),
    "rms_norm_of_heads": Operation(
        partial(rms_norm, epsilon=EPSILON), plain_rms_norm, [(TOKENS, HEADS, WIDTH)], [(WIDTH,)]
    ),
    "add_rms_norm": Operation(
        lambda x, residual, weight: torch.cat(add_rms_norm(x, residual, weight, EPSILON)),
        plain_add_rms_norm,
        [(TOKENS, HIDDEN)] * 2,
        [(HIDDEN,)],
    ),
    "rotate": Operation(
        lambda x: rotate(x, SCALES * ANGLES.cos(), SCALES * ANGLES.sin()),
        plain_rotate,
        [(TOKENS, HEADS, 2 * WIDTH)],
        [],
    ),
    **{
        kind: Operation(
            partial(gated, kind=kind),
            partial(plain_gated, function=function),
            [(TOKENS, INNER)] * 2,
            [],
        )
        for kind, function in {
            "swiglu": F.silu,
            "geglu": F.gelu,
            "geglu_tanh": partial(F.gelu, approximate="tanh"),
        }.items()
    },
    "attend": Operation(
        lambda qkv, bias, p=0.0: attend(qkv, bias, LAYOUT, p),
        plain_attend,
        [(TOKENS, 3, HEADS, WIDTH)],
        [(3, HEADS, WIDTH)],
    ),
    "attend_once": Operation(
        lambda q, kv, bias, p=0.0: attend_once(q, kv, bias, LAYOUT, p),
        plain_attend_once,
        [(len(FIRST), HEADS, WIDTH), (TOKENS, 2, HEADS, WIDTH)],
        [(3, HEADS, WIDTH)],
    ),
    "add_norm": Operation(
        run_add_norm, plain_add_norm, [(TOKENS, HIDDEN)] * 2, [(HIDDEN,), (HIDDEN,), (HIDDEN,)]
    ),
    "gelu": Operation(
        partial(feed_forward, kind="gelu"),
        partial(plain_feed_forward, approximate="none"),
        [(TOKENS, HIDDEN)],
        [(INNER, HIDDEN), (INNER,), (HIDDEN, INNER)],
    ),
    "gelu_tanh": Operation(
        partial(feed_forward, kind="gelu_tanh"),
        partial(plain_feed_forward, approximate="tanh"),
        [(TOKENS, HIDDEN)],
        [(INNER, HIDDEN), (INNER,), (HIDDEN, INNER)],
    ),
    "linear": Operation(linear, F.linear, [(TOKENS, HIDDEN)], [(INNER, HIDDEN), (INNER,)]),
    "linear_without_bias": Operation(
        lambda x, weight: linear(x, weight, None), F.linear, [(TOKENS, HIDDEN)], [(INNER, HIDDEN)]
    ),
    "project_first": Operation(
        run_project_first, plain_project_first, [(TOKENS, HIDDEN)], [(3 * HIDDEN, HIDDEN)]
    ),
}
DROPPING = {
    **{name: OPERATIONS[name] for name in ("attend", "attend_once", "add_norm")},
    "dropout": Operation(dropout, lambda x: x, [(TOKENS, HIDDEN)], []),
}

every_operation = pytest.mark.parametrize("name", OPERATIONS)


def normal(shapes: Shapes, dtype: torch.dtype, seed: int = 1) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=random, dtype=torch.float64).to(dtype) for shape in shapes]


def value_and_gradients(
    run: Callable[..., Tensor], tensors: list[Tensor], dtype: torch.dtype | None = None
) -> list[Tensor]:
    leaves = [tensor.detach().to(dtype or tensor.dtype).requires_grad_() for tensor in tensors]
    value = run(*leaves)
    (upper,) = normal([tuple(value.shape)], torch.bfloat16, seed=2)
    value.backward(upper.to(value.dtype))
    gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
    assert len(gradients) == len(leaves)
    return [value.detach(), *gradients]


def assert_near(given: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for one, other in zip(given, expected, strict=True):
        error = torch.linalg.vector_norm(one.double() - other.double())
        assert error <= tolerance * torch.linalg.vector_norm(other.double())


@every_operation
def test_gradients_are_those_of_differences(name: str) -> None:
    operation = OPERATIONS[name]
    tensors = normal(operation.activations + operation.parameters, torch.float64)
    assert torch.autograd.gradcheck(operation.run, [t.requires_grad_() for t in tensors])


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("name", DROPPING)
def test_gradients_under_dropout_are_those_of_differences(name: str, p: float) -> None:
    operation = DROPPING[name]
    tensors = normal(operation.activations + operation.parameters, torch.float64)

    def with_the_same_mask(*tensors: Tensor) -> Tensor:
        torch.manual_seed(3)
        return operation.run(*tensors, p=p)

    assert torch.autograd.gradcheck(with_the_same_mask, [t.requires_grad_() for t in tensors])


@every_operation
def test_float32_is_near_plain_code(name: str) -> None:
    operation = OPERATIONS[name]
    tensors = normal(operation.activations + operation.parameters, torch.float32)
    given = value_and_gradients(operation.run, tensors)
    assert_near(given, value_and_gradients(operation.plain, tensors, torch.float64), 1e-5)


@every_operation
def test_bf16_is_as_near_as_its_bits_allow(name: str) -> None:
    operation = OPERATIONS[name]
    activations = normal(operation.activations, torch.bfloat16)
    tensors = activations + normal(operation.parameters, torch.float32)
    given = value_and_gradients(operation.run, tensors)
    assert given[0].dtype == torch.bfloat16
    assert_near(given, value_and_gradients(operation.plain, tensors, torch.float32), BF16)


@every_operation
def test_an_activation_laid_out_otherwise_changes_nothing(name: str) -> None:
    operation = OPERATIONS[name]
    tensors = normal(operation.activations + operation.parameters, torch.float32)
    given = value_and_gradients(operation.run, tensors)
    count = len(operation.activations)
    turned = [t.transpose(0, -1).contiguous().transpose(0, -1) for t in tensors[:count]]
    assert not any(tensor.is_contiguous() for tensor in turned)
    for one, other in zip(
        value_and_gradients(operation.run, turned + tensors[count:]), given, strict=True
    ):
        torch.testing.assert_close(one, other)


@every_operation
def test_the_same_numbers_give_the_same_bits(name: str) -> None:
    operation = OPERATIONS[name]
    tensors = normal(operation.activations + operation.parameters, torch.float32)
    first = value_and_gradients(operation.run, tensors)
    again = value_and_gradients(operation.run, tensors)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


@pytest.mark.usefixtures("three_threads")
@every_operation
def test_threads_share_the_work(name: str) -> None:
    test_float32_is_near_plain_code(name)
    test_the_same_numbers_give_the_same_bits(name)


@pytest.mark.usefixtures("three_threads")
def test_more_threads_than_rows_are_no_trouble() -> None:
    x, up, up_bias, down = normal(
        [(1, HIDDEN), (INNER, HIDDEN), (INNER,), (HIDDEN, INNER)], torch.float32
    )
    given = value_and_gradients(partial(feed_forward, kind="gelu"), [x, up, up_bias, down])
    plain = partial(plain_feed_forward, approximate="none")
    assert_near(given, value_and_gradients(plain, [x, up, up_bias, down], torch.float64), 1e-5)


@pytest.mark.parametrize("kind", ["gelu", "gelu_tanh"])
def test_gelu_holds_far_from_zero(kind: str) -> None:
    x = torch.linspace(-60, 60, 1201)[:, None].requires_grad_()
    one, zero = torch.ones(1, 1), torch.zeros(1)
    feed_forward(x, one, zero, one, kind).sum().backward()
    exact = x.detach().double().requires_grad_()
    F.gelu(exact, approximate="tanh" if kind == "gelu_tanh" else "none").sum().backward()
    assert x.grad is not None and exact.grad is not None
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=0, atol=2e-6)


def test_a_row_of_equal_numbers_is_normalised_to_the_bias() -> None:
    weight, bias = torch.full((HIDDEN,), 2.0), torch.arange(HIDDEN).float()
    x, nothing = torch.full((3, HIDDEN), 7.0), torch.zeros(HIDDEN)
    y = add_norm(x, nothing, torch.zeros(3, HIDDEN), weight, bias, EPSILON, 0.0)
    assert torch.equal(y, bias.expand(3, -1))


def test_a_linear_layer_takes_any_number_of_dimensions() -> None:
    x, weight, bias = normal([(2, 3, HIDDEN), (INNER, HIDDEN), (INNER,)], torch.float32)
    flat = linear(x.flatten(0, 1), weight, bias)
    torch.testing.assert_close(linear(x, weight, bias).flatten(0, 1), flat)
