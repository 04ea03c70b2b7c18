"""Mixtures of experts, beside a loop over tokens and their experts in float64."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from igla.data.batch import pack
from igla.errors import UserError
from igla.model.decoder import Decoder, DecoderConfig, packed_causal
from igla.model.decoder.config import ExpertsConfig
from igla.model.decoder.experts import Experts, Routing, Routings, count_loads, rebalance, routers
from igla.model.decoder.upcycling import upcycle

TOKENS, HIDDEN = 29, 12
SHAPE: dict[str, Any] = dict(
    vocab_size=31, hidden_size=HIDDEN, layers=2, heads=2, kv_heads=1, head_dim=6,
    intermediate_size=10, max_positions=64,
)  # fmt: skip
MIXTRAL = ExpertsConfig(count=5, chosen=2)
OLMOE = ExpertsConfig(count=5, chosen=3, weights="among_all")
SHARED = ExpertsConfig(count=4, chosen=1, shared=2)
BIASED = ExpertsConfig(count=5, chosen=2, biased=True)


def experts(config: ExpertsConfig, feed_forward: str = "swiglu") -> Experts:
    torch.manual_seed(0)
    shape = DecoderConfig(**SHAPE, experts=config, feed_forward=feed_forward)
    layer: Experts = Experts(shape, config, layer=0).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def tokens() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(TOKENS, HIDDEN, generator=generator, dtype=torch.float64)


def by_loop(layer: Experts, x_TH: Tensor, config: ExpertsConfig) -> Tensor:
    """Every token by itself, expert after expert."""
    rows = []
    for x_H in x_TH:
        logits = layer.router.weight @ x_H
        scores = logits.exp() / logits.exp().sum()
        bias = torch.zeros(config.count) if layer.router.bias is None else layer.router.bias
        best = sorted(range(config.count), key=lambda e: -(scores[e] + bias[e]).item())
        best = best[: config.chosen]
        total = sum(scores[e] for e in best) if config.weights == "among_chosen" else 1
        row = torch.zeros_like(x_H) if layer.shared is None else layer.shared(x_H[None])[0]
        for e in best:
            h = layer.up.weight[e] @ x_H
            if layer.gated:
                gate, up = h.chunk(2)
                h = F.silu(gate) * up
            else:
                h = F.relu(h) ** 2
            row = row + scores[e] / total * (layer.down.weight[e] @ h)
        rows.append(row)
    return torch.stack(rows)


@pytest.mark.parametrize("config", [MIXTRAL, OLMOE, SHARED, BIASED], ids=str)
@pytest.mark.parametrize("feed_forward", ["swiglu", "relu2"])
def test_a_mixture_is_what_a_loop_over_tokens_gives(
    config: ExpertsConfig, feed_forward: str
) -> None:
    layer, x = experts(config, feed_forward), tokens().requires_grad_()
    if layer.router.bias is not None:
        layer.router.bias.copy_(torch.tensor([0.5, -0.5, 0.0, 0.3, 0.0]))
    ours, theirs = layer(x, None), by_loop(layer, x, config)
    assert (ours - theirs).abs().max() < 1e-12
    wanted = [x, *layer.parameters()]
    weight = torch.randn_like(theirs)
    for mine, other in zip(
        torch.autograd.grad((ours * weight).sum(), wanted),
        torch.autograd.grad((theirs * weight).sum(), wanted),
        strict=True,
    ):
        assert (mine - other).abs().max() < 1e-11


def test_gradients_agree_with_differences() -> None:
    layer, x = experts(MIXTRAL), tokens()[:6].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: layer(x, None), (x,))


def test_a_token_does_not_hang_on_what_else_is_computed_with_it() -> None:
    layer, x = experts(MIXTRAL), tokens()
    together = layer(x, None)
    alone = torch.cat([layer(x[t : t + 1], None) for t in range(TOKENS)])
    assert (together - alone).abs().max() < 1e-12


def routed(layer: Experts, x: Tensor) -> tuple[Tensor, Routing]:
    routings: Routings = {}
    return layer(x, routings), routings[0]


def test_what_is_over_the_capacity_is_dropped_counted_and_left_to_the_residual() -> None:
    layer, x = experts(ExpertsConfig(count=5, chosen=1)), tokens()
    plain, _ = routed(layer, x)
    layer.router.capacity = 0.5
    places = math.ceil(0.5 * TOKENS / 5)
    out, routing = routed(layer, x)
    assert routing.kept is not None
    for expert in range(5):
        ours = (routing.chosen[:, 0] == expert).nonzero()[:, 0]
        # Earlier tokens are served first.
        assert routing.kept[ours, 0].tolist() == [n < places for n in range(len(ours))]
    kept = routing.kept[:, 0]
    assert 0 < int((~kept).sum()) < TOKENS
    assert torch.allclose(out[kept], plain[kept], atol=1e-12)
    assert not out[~kept].any()


def test_a_capacity_for_all_changes_nothing_and_evaluation_has_none() -> None:
    layer, x = experts(MIXTRAL), tokens()
    plain, _ = routed(layer, x)
    layer.router.capacity = 5.0
    assert torch.equal(routed(layer, x)[0], plain)
    layer.router.capacity = 0.1
    assert not torch.equal(routed(layer, x)[0], plain)
    assert torch.equal(routed(layer.eval(), x)[0], plain)


def test_a_later_token_takes_no_place_from_an_earlier_one() -> None:
    layer, x = experts(MIXTRAL), tokens()
    layer.router.capacity = 0.5
    before, _ = routed(layer, x)
    x = x.clone()
    x[20:] = x[0]
    after, _ = routed(layer, x)
    assert torch.allclose(before[:20], after[:20], atol=1e-12)


def test_a_bias_moves_towards_even_use_and_changes_no_weight() -> None:
    layer, x = experts(BIASED), tokens() + 1.0  # tokens that are much alike
    router = layer.router
    router.bias_rate = 0.01
    assert router.bias is not None and router.load is not None
    loads = []
    for _ in range(300):
        for part in x.split(10):  # micro-batches of a step
            count_loads(layer, {0: routed(layer, part)[1]})
        expected = router.load.clone()
        assert int(expected.sum()) == TOKENS * 2
        before = router.bias.clone()
        rebalance(layer)
        moved = 0.01 * (expected.mean() - expected).sign()
        assert torch.equal(router.bias, before + moved)
        assert not router.load.any()
        loads.append(expected)
    assert max(loads[-1]) - min(loads[-1]) < (max(loads[0]) - min(loads[0])) / 2
    routing = routed(layer, x)[1]
    chosen = routing.scores.gather(1, routing.chosen)
    assert torch.allclose(routing.weights, chosen / chosen.sum(1, keepdim=True))


def test_a_model_says_what_its_routers_did_even_with_recomputed_layers() -> None:
    torch.manual_seed(0)
    model = Decoder(DecoderConfig(**SHAPE, experts=MIXTRAL, tied=True)).double()
    model.compute_dtype = torch.float64
    batch = pack([torch.arange(9).numpy(), torch.arange(4).numpy()])
    gradients = []
    for model.checkpoint_activations in (False, True):
        routings: Routings = {}
        attend = packed_causal(batch, model.config)
        x = model(batch.tokens, batch.positions, attend, routings)
        assert sorted(routings) == [0, 1]
        loss = x.square().sum() + sum(r.logits.square().sum() for r in routings.values())
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)
    assert len(routers(model)) == 2


@pytest.mark.parametrize("feed_forward", ["swiglu", "relu2"])
@pytest.mark.parametrize("shared", [0, 2])
def test_an_upcycled_decoder_starts_as_the_dense_one(feed_forward: str, shared: int) -> None:
    torch.manual_seed(0)
    dense = Decoder(DecoderConfig(**SHAPE, feed_forward=feed_forward)).double()
    dense.compute_dtype = torch.float64
    mixed = upcycle(dense, ExpertsConfig(count=4, chosen=2, shared=shared))
    batch = pack([torch.arange(20).numpy()])
    with torch.no_grad():
        ours, theirs = (
            model.logits(model(batch.tokens, batch.positions, packed_causal(batch, model.config)))
            for model in (mixed, dense)
        )
    assert (ours - theirs).abs().max() < 1e-12
    with pytest.raises(UserError, match="experts already"):
        upcycle(mixed, MIXTRAL)
    with pytest.raises(UserError, match="among_chosen"):
        upcycle(dense, OLMOE)


def test_experts_without_biases_are_not_made_of_a_part_that_has_some() -> None:
    with pytest.raises(UserError, match="no biases"):
        DecoderConfig(**SHAPE, experts=MIXTRAL, ffn_bias=True)


def test_more_experts_for_a_token_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match="3 of 2 experts"):
        ExpertsConfig(count=2, chosen=3)
