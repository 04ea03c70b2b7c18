"""Adapters on a model: attached, chosen, merged, taken away."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from igla.adapt import (
    AdapterConfig,
    Target,
    activate,
    adapted,
    adapter_names,
    attach,
    detach,
    freeze,
    inactive,
    merge,
    rate_scale,
    unmerge,
)
from igla.data.batch import PackedBatch
from igla.errors import UserError
from igla.model.encoder import SequenceClassifier

Logits = Callable[[], Tensor]
Learned = Callable[[nn.Module], None]
Targets = tuple[Target, ...]
# Which layers, and by which method.
KINDS = {
    "lora": AdapterConfig(),
    "lora of some": AdapterConfig(targets=("query", "value", "layer.1.output.dense")),
    "lora of words": AdapterConfig(targets=("word_embeddings", "pooler.dense")),
    "dora": AdapterConfig(method="dora", rank=4, rank_stabilised=True),
}


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_changes_nothing_at_first_and_much_once_it_has_learned(
    kind: str, model: SequenceClassifier, targets: Targets, logits: Logits, learned: Learned
) -> None:
    alone = logits()
    attach(model, targets, KINDS[kind])
    torch.testing.assert_close(logits(), alone, rtol=0, atol=1e-6)
    learned(model)
    assert (logits() - alone).abs().max() > 0.05
    with inactive(model):
        assert torch.equal(logits(), alone)
    assert (logits() - alone).abs().max() > 0.05
    detach(model)
    assert torch.equal(logits(), alone) and not adapted(model)


@pytest.mark.parametrize("kind", KINDS)
def test_merged_it_gives_the_same_and_unmerging_restores_every_bit(
    kind: str, model: SequenceClassifier, targets: Targets, logits: Logits, learned: Learned
) -> None:
    alone = logits()
    attach(model, targets, KINDS[kind])
    learned(model)
    with_it, before = logits(), weights(model)
    merge(model)
    merge(model)  # once more changes nothing
    torch.testing.assert_close(logits(), with_it, rtol=0, atol=2e-5)
    for change in (
        lambda: activate(model, []),
        lambda: attach(model, targets, AdapterConfig(), "other"),
        lambda: detach(model, "default"),
    ):
        with pytest.raises(UserError, match="unmerge them first"):
            change()
    assert adapter_names(model) == ["default"]
    merged = weights(model)
    with inactive(model):
        assert torch.equal(logits(), alone)
    assert all(torch.equal(value, merged[name]) for name, value in weights(model).items())
    unmerge(model)
    assert torch.equal(logits(), with_it)
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items())


def test_a_merged_model_without_its_adapters_is_an_ordinary_one(
    model: SequenceClassifier, targets: Targets, logits: Logits, learned: Learned
) -> None:
    names = weights(model).keys()
    attach(model, targets, AdapterConfig())
    learned(model)
    with_it = logits()
    merge(model)
    detach(model)
    assert weights(model).keys() == names and all(
        layer.plain for layer in model.modules() if hasattr(layer, "plain")
    )
    torch.testing.assert_close(logits(), with_it, rtol=0, atol=2e-5)


def test_several_count_together_and_are_switched_at_run_time(
    model: SequenceClassifier, targets: Targets, logits: Logits, learned: Learned
) -> None:
    some = AdapterConfig(rank=2, targets=("query", "output.dense"))
    attach(model, targets, AdapterConfig(rank=3), "a")
    attach(model, targets, some, "b")
    learned(model)
    assert adapter_names(model) == ["a", "b"]
    found = {}
    for names in (["a"], ["b"], ["a", "b"], []):
        activate(model, names)
        found["".join(names)] = logits()
    apart = [(found[one] - found[other]).abs().max() for one, other in ("ab", ("a", "ab"))]
    assert min(apart) > 0.05
    activate(model, ["a", "b", "a"])
    assert torch.equal(logits(), found["ab"])
    merge(model)
    torch.testing.assert_close(logits(), found["ab"], rtol=0, atol=2e-5)
    unmerge(model)
    detach(model, "b")
    assert adapter_names(model) == ["a"] and torch.equal(logits(), found["a"])
    detach(model, "a")
    assert torch.equal(logits(), found[""])


def test_two_loras_are_the_sum_of_their_weights(
    model: SequenceClassifier, targets: Targets, learned: Learned
) -> None:
    for name in ("a", "b"):
        attach(model, targets, AdapterConfig(rank=2), name)
    learned(model)
    layer = model.encoder.layers[0].up
    changes = []
    for names in (["a"], ["b"], ["a", "b"]):
        activate(model, names)
        changes.append((layer.whole_weight() - layer.weight).detach())
    torch.testing.assert_close(changes[0] + changes[1], changes[2], rtol=0, atol=1e-6)


def test_only_the_adapter_and_what_is_trained_whole_get_gradients(
    model: SequenceClassifier, targets: Targets, batch: PackedBatch, learned: Learned
) -> None:
    attach(model, targets, AdapterConfig(), "kept")
    attach(model, targets, AdapterConfig(method="dora", targets=("query",)), "trained")
    freeze(model, "trained", ["output"])
    learned(model)
    model.train()
    model(batch).sum().backward()
    for name, parameter in model.named_parameters():
        trained = ".adapter.named.trained." in name or name.startswith("output.")
        assert (parameter.grad is not None and bool(parameter.grad.any())) == trained, name
    assert {rate_scale(name, 16) for name in dict(model.named_parameters()) if "up" in name} == {
        1.0,
        16.0,
    }


def test_dropout_of_an_adapter_acts_in_training_alone(
    model: SequenceClassifier, targets: Targets, logits: Logits, learned: Learned
) -> None:
    attach(model, targets, AdapterConfig(dropout=0.5))
    learned(model)
    assert torch.equal(logits(), logits())
    model.train()
    assert not torch.equal(logits(), logits())


@pytest.mark.parametrize(
    ("config", "name", "said"),
    [
        (AdapterConfig(targets=("q_proj",)), "new", "no layer of this model is called q_proj"),
        (AdapterConfig(), "old", "has an adapter 'old' already"),
        (AdapterConfig(), "a.b", "has no dots"),
        (AdapterConfig("dora", targets=("word_embeddings",)), "new", "DoRA is of linear layers"),
    ],
)
def test_what_cannot_be_attached_is_refused_in_a_sentence(
    config: AdapterConfig, name: str, said: str, model: SequenceClassifier, targets: Targets
) -> None:
    attach(model, targets, AdapterConfig(), "old")
    with pytest.raises(UserError, match=said):
        attach(model, targets, config, name)


def test_an_unknown_adapter_and_a_dora_beside_another_are_refused(
    model: SequenceClassifier, targets: Targets
) -> None:
    attach(model, targets, AdapterConfig(), "plain")
    attach(model, targets, AdapterConfig(method="dora"), "measured")
    with pytest.raises(UserError, match="no adapter 'x'; it has plain, measured"):
        activate(model, ["x"])
    with pytest.raises(UserError, match="cannot count beside another"):
        activate(model, ["plain", "measured"])
