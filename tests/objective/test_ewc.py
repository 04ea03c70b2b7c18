"""The penalty for leaving old weights, against its formula in float64."""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from igla.data.batch import PackedBatch, pack
from igla.data.plan import DataPlan
from igla.data.store import TokenStore
from igla.model.config import named_config
from igla.model.encoder import SequenceClassifier
from igla.model.language import MaskedLanguageModel
from igla.objective.classify import Classify
from igla.objective.ewc import Anchored, anchored, fisher_diagonal
from igla.objective.masked_lm import MaskedLM
from igla.objective.masking import Masking
from igla.optim import build_optimizer
from igla.train.loop import LoopSettings, fit
from igla.train.scaling import LossScale
from igla.train.state import TrainState

BINARY = Classify("binary_cross_entropy", False, None, 0.0, 2.0)
ROWS = 12


class Logistic(nn.Module):
    """One question about how often each token occurs in a sequence: z = w·x."""

    def __init__(self, vocab_size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, vocab_size, dtype=torch.float64))

    def forward(self, batch: PackedBatch) -> Tensor:
        x_BV = counts(batch, len(self.weight))
        z_B = x_BV @ self.weight
        return torch.stack([torch.zeros_like(z_B), z_B], dim=1)


def counts(batch: PackedBatch, vocab_size: int) -> Tensor:
    ends = batch.cu_seqlens.tolist()
    return torch.stack(
        [
            torch.bincount(batch.tokens[start:end], minlength=vocab_size).double()
            for start, end in pairwise(ends)
        ]
    )


def store(vocab_size: int = 50) -> TokenStore:
    random = np.random.default_rng(0)
    lengths = random.integers(3, 10, ROWS)
    return TokenStore(
        tokens=random.integers(5, vocab_size, lengths.sum()),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        lost=np.zeros(ROWS, dtype=np.int64),
        labels=random.integers(0, 2, ROWS),
        weights=random.uniform(0.5, 8, ROWS).astype(np.float32),
    )


def classifier(dropout: float) -> SequenceClassifier:
    torch.manual_seed(0)
    shape = dict(layers=1, hidden_size=16, intermediate_size=32)
    config = named_config(
        "tiny", vocab_size=50, max_positions=20, dropout=dropout, attention_dropout=dropout, **shape
    )
    network = SequenceClassifier(config, 2).double()
    network.encoder.compute_dtype = torch.float64
    return network


def singles(rows: TokenStore) -> list[PackedBatch]:
    return [rows.batch(np.array([row])) for row in range(ROWS)]


def test_fisher_of_logistic_regression_is_its_closed_form() -> None:
    rows, model = store(), Logistic(50)
    found = fisher_diagonal(model, BINARY, singles(rows))["weight"]
    batch = rows.batch(np.arange(ROWS))
    x_BV = counts(batch, 50)
    p_B = torch.sigmoid(x_BV @ model.weight.detach())
    assert batch.targets is not None
    errors_B = p_B - batch.targets
    expected = (errors_B[:, None] ** 2 * x_BV**2).mean(0)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    # The published mistake would give another one.
    assert not torch.allclose(found, (errors_B[:, None] * x_BV).mean(0) ** 2, rtol=0.1)


def test_fisher_is_the_mean_of_squared_gradients_without_dropout() -> None:
    rows, model = store(), classifier(dropout=0.5)
    model.train()
    found = fisher_diagonal(model, BINARY, singles(rows))
    assert model.training and all(one.grad is None for one in model.parameters())
    model.eval()
    expected = {name: torch.zeros_like(one) for name, one in model.named_parameters()}
    for row in range(ROWS):
        model.zero_grad()
        logits = model(pack(rows.sequences(np.array([row]))))
        margin = logits[0, 1] - logits[0, 0]
        assert rows.labels is not None
        target = torch.tensor(float(rows.labels[row]), dtype=torch.float64)
        nn.functional.binary_cross_entropy_with_logits(margin, target).backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                expected[name] += parameter.grad**2 / ROWS
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-18)
    assert sum(float(value.sum()) for value in found.values()) > 0


def test_the_penalty_and_its_gradient_are_their_formula() -> None:
    rows, model = store(), Logistic(50)
    random = torch.Generator().manual_seed(1)
    anchor = torch.randn(50, generator=random, dtype=torch.float64)
    fisher = torch.rand(50, generator=random, dtype=torch.float64)
    anchored = Anchored(BINARY, {"weight": anchor}, {"weight": fisher}, strength=3.0)
    away = model.weight.detach() - anchor
    penalty = anchored.penalty(model)
    torch.testing.assert_close(penalty, 1.5 * (fisher * away**2).sum(), rtol=1e-12, atol=0)
    batch = rows.batch(np.arange(ROWS))
    plain, whole = BINARY.loss(model, batch), anchored.loss(model, batch)
    difference = (whole.sum - plain.sum) / whole.count
    [gradient] = torch.autograd.grad(difference, [model.weight])
    torch.testing.assert_close(gradient, 3.0 * fisher * away, rtol=1e-9, atol=1e-12)


def test_an_example_of_which_nothing_is_guessed_is_none() -> None:
    special = torch.arange(50) < 5
    objective = MaskedLM(Masking(0.3, "token", 4, special, torch.zeros(50, dtype=torch.bool)))
    model = MaskedLanguageModel(classifier(dropout=0.0).encoder.config)
    rows, found = singles(store()), []
    for examples in (rows, [*rows, pack([np.array([2, 1, 1, 3])])]):
        torch.manual_seed(0)
        found.append(fisher_diagonal(model, objective, examples))
    for name, value in found[0].items():
        assert torch.equal(found[1][name], value) and value.isfinite().all()


def anchored_elsewhere(model: nn.Module) -> Anchored:
    """By the rows' own Fisher diagonal, around weights that the model has left."""
    found = anchored(BINARY, model, BINARY, singles(store()), strength=3.0)
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for one in model.parameters():
            one += torch.randn(one.shape, generator=random, dtype=one.dtype)
    return found


def test_the_gradient_of_the_whole_loss_is_that_of_finite_differences() -> None:
    model, batch = Logistic(50), store().batch(np.arange(ROWS))
    objective = anchored_elsewhere(model)

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self) -> Tensor:
            found = objective.loss(self.model, batch)
            return found.sum / found.count

    whole = Whole()
    of_weights = lambda weight: functional_call(whole, {"model.weight": weight}, ())  # noqa: E731
    start = model.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(of_weights, [start])
    # The penalty has its part in what was checked.
    assert float(objective.penalty(model).detach()) > 0.1


def penalty_share(parts: list[PackedBatch], model: nn.Module, objective: Anchored) -> Tensor:
    """What the penalty adds to the gradient of a step of these parts, which may be micro-batches or
    those of ranks: sums added, and divided once by the counts of all."""
    weights = list(model.parameters())
    added: list[Tensor | float] = [0.0] * len(weights)
    count = 0.0
    for part in parts:
        plain, whole = BINARY.loss(model, part), objective.loss(model, part)
        gradients = torch.autograd.grad(whole.sum - plain.sum, weights)
        added = [one + more for one, more in zip(added, gradients, strict=True)]
        count += whole.count.item()
    return torch.cat([torch.as_tensor(one).ravel() / count for one in added])


def test_the_penalty_is_the_same_whatever_the_batch_and_however_it_is_divided() -> None:
    rows, model = store(), classifier(dropout=0.0)
    objective = anchored_elsewhere(model)
    expected = torch.cat(
        [
            (3.0 * objective.fisher[name] * (one - objective.anchor[name])).detach().ravel()
            for name, one in model.named_parameters()
        ]
    )
    assert expected.norm() > 0
    for sizes in ([ROWS], [1], [5], [1, ROWS - 1], [3, 4, 5], [1] * ROWS):
        cuts = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
        found = penalty_share([rows.batch(part) for part in cuts], model, objective)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_only_weights_that_are_trained_are_held() -> None:
    model = classifier(dropout=0.0)
    model.encoder.requires_grad_(False)
    found = anchored(BINARY, model, BINARY, singles(store()), strength=1.0)
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    assert found.fisher.keys() == found.anchor.keys() == trained
    with torch.no_grad():
        model.encoder.embeddings.word.weight += 1
    assert found.penalty(model) == 0
    with torch.no_grad():
        model.output.weight += 1
    assert found.penalty(model) > 0


def steps(micro_batch_size: int | None, strength: float) -> Tensor:
    rows, model = store(), classifier(dropout=0.0)
    anchor = {name: one.detach() + 0.1 for name, one in model.named_parameters()}
    fisher = {name: torch.ones_like(one) for name, one in model.named_parameters()}
    optimizer = build_optimizer(
        "sgd",
        model,
        learning_rate=0.1,
        weight_decay=0.0,
        betas=(0.9, 0.99),
        epsilon=1e-8,
        momentum=0.0,
    )
    settings = LoopSettings(2, micro_batch_size, lambda step: 0.1, None, 0, torch.device("cpu"))
    state = TrainState(model, optimizer, None, LossScale.for_precision("float32"))
    plan = DataPlan(rows.lengths, batch_size=ROWS, seed=0)
    objective = Anchored(BINARY, anchor, fisher, strength)
    list(fit(state, objective, rows, np.arange(ROWS), plan, settings))
    return torch.cat([value.detach().ravel() for value in model.parameters()])


def test_the_penalty_counts_once_a_step_however_the_batch_is_accumulated() -> None:
    whole = steps(None, strength=0.5)
    torch.testing.assert_close(steps(5, strength=0.5), whole, rtol=1e-7, atol=1e-9)
    assert not torch.allclose(whole, steps(None, strength=0.0))
