"""AdamW against its formula and torch's, and rows updated late against all rows in every step."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from igla.model.parts import Embedding
from igla.optim import (
    AdamW,
    apply_gradients,
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    set_learning_rate,
)

# Without a compiler there is no such optimizer.
pytestmark = pytest.mark.usefixtures("kernels")

BETAS, EPSILON, DECAY = (0.8, 0.95), 1e-6, 0.1


def random_of(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rate_of(step: int) -> float:
    return 1e-2 * (1 + step % 5)


def adamw(weight: nn.Parameter, weight_decay: float = DECAY) -> AdamW:
    return AdamW([weight], betas=BETAS, eps=EPSILON, weight_decay=weight_decay)


def step(optimizer: torch.optim.Optimizer, number: int, gradient: Tensor) -> None:
    (group,) = optimizer.param_groups
    group["lr"] = rate_of(number)
    group["params"][0].grad = gradient
    optimizer.step()


def test_twenty_steps_are_the_papers() -> None:
    weight = nn.Parameter(random_of(7, 33, seed=0))
    optimizer = adamw(weight)
    value = weight.detach().double().numpy()
    m = v = np.zeros_like(value)
    for t in range(1, 21):
        gradient = random_of(7, 33, seed=t)
        step(optimizer, t, gradient)
        g = gradient.double().numpy()
        m = BETAS[0] * m + (1 - BETAS[0]) * g
        v = BETAS[1] * v + (1 - BETAS[1]) * g**2
        direction = (m / (1 - BETAS[0] ** t)) / (np.sqrt(v / (1 - BETAS[1] ** t)) + EPSILON)
        value = value - rate_of(t) * (direction + DECAY * value)
    state = optimizer.state[weight]
    for given, expected in ((weight, value), (state["exp_avg"], m), (state["exp_avg_sq"], v)):
        error = np.linalg.norm(given.detach().numpy() - expected)
        assert error < 1e-6 * np.linalg.norm(expected)
        np.testing.assert_allclose(given.detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    assert state["step"] == 20


# The largest is shared out among threads where there are some.
@pytest.mark.parametrize("size", [1, 1000, 50_001])
def test_the_steps_and_the_state_are_torchs_but_for_rounding(size: int) -> None:
    weight, other = (nn.Parameter(random_of(size, seed=0)) for _ in range(2))
    optimizer = adamw(weight)
    torchs = torch.optim.AdamW([other], betas=BETAS, eps=EPSILON, weight_decay=DECAY, fused=True)
    for number in range(1, 11):
        gradient = random_of(size, seed=number)
        step(optimizer, number, gradient.clone())
        step(torchs, number, gradient)
    torch.testing.assert_close(weight, other, rtol=1e-6, atol=1e-6)
    state, expected = optimizer.state[weight], torchs.state[other]
    assert state.keys() == expected.keys()
    for name in state:
        torch.testing.assert_close(state[name], expected[name], rtol=1e-6, atol=1e-6)


def test_a_bf16_gradient_counts_as_the_same_float32_numbers() -> None:
    weights = [nn.Parameter(random_of(100, seed=0)) for _ in range(2)]
    for weight, dtype in zip(weights, (torch.bfloat16, torch.float32), strict=True):
        weight.grad_dtype = None
        optimizer = adamw(weight)
        for number in range(1, 6):
            step(optimizer, number, random_of(100, seed=number).bfloat16().to(dtype))
    assert torch.equal(*weights)


def test_a_scaled_step_takes_the_gradient_times_the_factor() -> None:
    weights = [nn.Parameter(random_of(100, seed=0)) for _ in range(2)]
    scaled, optimizer = (adamw(weight) for weight in weights)
    for number in range(1, 6):
        gradient = random_of(100, seed=number)
        weights[0].grad = gradient.clone()
        scaled.step_scaled(0.25)
        weights[1].grad = 0.25 * gradient
        optimizer.step()
        assert torch.equal(weights[0].grad, gradient)
    assert torch.equal(*weights)


def test_a_weight_without_a_gradient_stays() -> None:
    weight = nn.Parameter(random_of(3, seed=0))
    adamw(weight).step()
    assert torch.equal(weight, random_of(3, seed=0))


class Table(NamedTuple):
    """A table and its optimizer; `late` ones update their rows by rows."""

    embedding: Embedding
    optimizer: AdamW


def table_of(rows: int, width: int, *, late: bool, decay: float = DECAY) -> Table:
    embedding = Embedding(rows, width)
    embedding.weight.data.copy_(random_of(rows, width, seed=0))
    optimizer = build_optimizer(
        "adamw",
        embedding,
        learning_rate=1.0,
        weight_decay=decay,
        betas=BETAS,
        epsilon=EPSILON,
        momentum=0.0,
    )
    assert isinstance(optimizer, AdamW)
    if late:
        embedding.before_reading = optimizer.by_rows(embedding.weight)
    return Table(embedding, optimizer)


def sparse_gradient(table: Table, number: int, read: Tensor) -> Tensor:
    """Of a loss that hangs on the rows read, each of them more than once at times."""
    upper = random_of(len(read), table.embedding.weight.shape[1], seed=number)
    table.optimizer.zero_grad()
    (table.embedding(read).square() * upper).sum().backward()
    gradient = table.embedding.weight.grad
    assert gradient is not None and gradient.is_sparse
    return gradient


def rows_of(number: int, below: int, count: int = 4) -> Tensor:
    return torch.randint(below, (count,), generator=torch.Generator().manual_seed(number))


def train(table: Table, first: int, last: int, below: int, dense: Table | None = None) -> None:
    """Steps first … last on random rows under `below`; a dense table gets the same gradients."""
    for number in range(first, last + 1):
        read = rows_of(number, below)
        if dense is not None:
            assert torch.equal(table.embedding(read), dense.embedding(read))
        gradient = sparse_gradient(table, number, read)
        for each in (table, dense):
            if each is None:
                continue
            each.embedding.weight.grad = gradient if each is table else gradient.to_dense()
            set_learning_rate(each.optimizer, rate_of(number))
            apply_gradients(each.optimizer, 0.5, None)


def assert_same(table: Table, other: Table) -> None:
    weights = table.embedding.weight, other.embedding.weight
    assert torch.equal(*weights)
    state, expected = table.optimizer.state[weights[0]], other.optimizer.state[weights[1]]
    for name in ("step", "exp_avg", "exp_avg_sq"):
        assert torch.equal(state[name], expected[name])


@pytest.mark.parametrize("decay", [0.0, DECAY])
@pytest.mark.parametrize("width", [1, 5, 64, 100])
def test_rows_updated_late_have_the_bits_of_rows_updated_always(width: int, decay: float) -> None:
    late = table_of(30, width, late=True, decay=decay)
    dense = table_of(30, width, late=False, decay=decay)
    train(late, 1, 40, below=25, dense=dense)
    assert not torch.equal(late.embedding.weight, dense.embedding.weight)
    late.optimizer.settle()
    assert_same(late, dense)


def test_a_row_may_be_late_by_thousands_of_steps() -> None:
    late, dense = table_of(4, 3, late=True), table_of(4, 3, late=False)
    train(late, 1, 2, below=4, dense=dense)
    train(late, 3, 2500, below=2, dense=dense)
    train(late, 2501, 2510, below=4, dense=dense)
    late.optimizer.settle()
    assert_same(late, dense)


def test_settling_at_any_time_changes_nothing() -> None:
    settled, other = table_of(30, 5, late=True), table_of(30, 5, late=True)
    for number in range(1, 31):
        train(settled, number, number, below=25)
        train(other, number, number, below=25)
        settled.optimizer.settle()
    settled.optimizer.settle()
    other.optimizer.settle()
    assert_same(settled, other)


def test_reading_gives_what_settling_gives() -> None:
    late, settled = table_of(30, 5, late=True), table_of(30, 5, late=True)
    for table in (late, settled):
        train(table, 1, 20, below=25)
    settled.optimizer.settle()
    for read in (torch.tensor([3, 3, 29]), torch.tensor([[1, 2], [2, 28]]), torch.arange(30)):
        with torch.inference_mode():
            assert torch.equal(late.embedding(read), settled.embedding.weight[read])
    assert_same(late, settled)


def test_threads_change_no_bit() -> None:
    tables = [table_of(200, 33, late=True) for _ in range(2)]
    weights = [nn.Parameter(random_of(50_001, seed=0)) for _ in range(2)]
    before = torch.get_num_threads()
    for threads, table, weight in zip((1, 3), tables, weights, strict=True):
        torch.set_num_threads(threads)
        train(table, 1, 10, below=150)
        table.optimizer.settle()
        optimizer = adamw(weight)
        for number in range(1, 4):
            step(optimizer, number, random_of(50_001, seed=number))
    torch.set_num_threads(before)
    assert_same(*tables)
    assert torch.equal(*weights)


def saved_and_loaded(table: Table) -> Table:
    table.optimizer.settle()
    weights = {name: tensor.clone() for name, tensor in table.embedding.state_dict().items()}
    state = {name: tensor.clone() for name, tensor in optimizer_tensors(table.optimizer).items()}
    loaded = table_of(*table.embedding.weight.shape, late=True)
    loaded.embedding.load_state_dict(weights)
    load_optimizer_tensors(loaded.optimizer, state)
    return loaded


@pytest.mark.parametrize("stop", [0, 1, 15])
def test_a_table_saved_and_loaded_goes_on_with_the_same_bits(stop: int) -> None:
    late, dense = table_of(30, 5, late=True), table_of(30, 5, late=False)
    train(late, 1, stop, below=25, dense=dense)
    loaded = saved_and_loaded(late)
    train(loaded, stop + 1, 30, below=25, dense=dense)
    train(late, stop + 1, 30, below=25)
    for table in (late, loaded):
        table.optimizer.settle()
        assert_same(table, dense)


def test_a_row_whose_squares_vanish_goes_on_with_the_same_bits() -> None:
    late = table_of(3, 5, late=True)
    row = torch.tensor([[1]])
    tiny = torch.sparse_coo_tensor(row, torch.full((1, 5), 1e-25), (3, 5), check_invariants=True)
    step(late.optimizer, 1, tiny)
    loaded = saved_and_loaded(late)
    for table in (late, loaded):
        train(table, 2, 6, below=1)
        table.optimizer.settle()
    assert_same(late, loaded)


def test_a_state_from_before_the_first_step_begins_anew() -> None:
    late, fresh = table_of(30, 5, late=True), table_of(30, 5, late=True)
    empty = dict(optimizer_tensors(late.optimizer))
    train(late, 1, 5, below=25)
    late.optimizer.settle()
    late.embedding.load_state_dict(fresh.embedding.state_dict())
    load_optimizer_tensors(late.optimizer, empty)
    for table in (late, fresh):
        train(table, 1, 8, below=25)
        table.optimizer.settle()
    assert_same(late, fresh)
