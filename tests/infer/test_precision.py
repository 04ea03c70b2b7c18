"""Encoders that answer in a precision: near float32, and each text by itself."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from igla.data.batch import PackedBatch, pack
from igla.errors import UserError
from igla.infer import precision as choice
from igla.infer.classifier import Classifier
from igla.infer.native_encoder import why_not
from igla.infer.precision import EncoderPrecision, compute_in, wanted
from igla.infer.scoring import outputs_of
from igla.model.config import EncoderConfig, named_config
from igla.model.embedding import PooledEncoder
from igla.model.encoder import Encoder, SequenceClassifier
from igla.model.parts import Adapter
from igla.ops import native

PRECISIONS: tuple[EncoderPrecision, ...] = get_args(EncoderPrecision)
# Largest difference from float32 arithmetic, of states that LayerNorm has brought to 1.
OFF = {"float32": 2e-5, "bf16": 0.05, "int8": 0.15}
SHAPES = {
    "tiny": {},
    "heads of 16, and rests of panels": {"hidden_size": 96, "heads": 6, "intermediate_size": 224},
    "one layer": {"layers": 1},
    "ELECTRA": {"embedding_size": 32},
    "RoBERTa": {"first_position": 2, "segments": 1},
    "DistilBERT": {"segments": 0},
    "n-grams": {"ngrams": 1000},
    **{one: {"activation": one} for one in ("gelu_new", "relu", "tanh")},
}
LENGTHS = [20, 60, 1, 3, 128, 7, 90, 90, 31, 64, 2, 50]


def encoder_of(**changes: object) -> Encoder:
    torch.manual_seed(0)
    config = named_config("tiny", vocab_size=200, max_positions=128)
    encoder = Encoder(replace(config, **changes)).eval().requires_grad_(False)
    fill(encoder)
    return encoder


def fill(encoder: Encoder) -> None:
    """With numbers as a trained one might have them, and spellings for n-grams."""
    for name, parameter in encoder.named_parameters():
        if parameter.ndim == 2 and "layers" in name:
            torch.nn.init.normal_(parameter, std=0.08)
        elif parameter.ndim == 1:
            parameter.add_(0.1 * torch.randn_like(parameter))
    if (ngrams := encoder.embeddings.ngrams) is not None:
        torch.nn.init.normal_(ngrams.table.weight)
        # Pieces that begin words, that go on with them, and special ones without letters.
        for token in range(5, 200):
            letters = torch.arange(token % 7 + 1, dtype=torch.int32) * token % 50 + 60
            spelt = [1, *letters] if token % 3 else [*letters]
            ngrams.letters[token, : len(spelt)] = torch.tensor(spelt)
            if token % 10 == 0:
                ngrams.letters[token] = 0


def compute(encoder: Encoder, precision: EncoderPrecision) -> str | None:
    return compute_in(PooledEncoder(encoder, "mean"), precision)


def sequences_of(lengths: list[int]) -> list[np.ndarray]:
    chance = np.random.default_rng(0)
    return [chance.integers(5, 200, length) for length in lengths]


def states(encoder: Encoder, batch: PackedBatch, first_only: bool) -> Tensor:
    with torch.inference_mode():
        return encoder(batch, first_only)


@pytest.fixture(params=PRECISIONS)
def precision(request: pytest.FixtureRequest, kernels: None) -> EncoderPrecision:
    return request.param


def native_or_skip(encoder: Encoder, precision: EncoderPrecision) -> None:
    reason = compute(encoder, precision)
    if reason:
        pytest.skip(reason)


@pytest.mark.parametrize("first_only", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_compute_what_the_layers_do(
    precision: EncoderPrecision, shape: str, first_only: bool
) -> None:
    batch = pack(sequences_of(LENGTHS))
    exact = states(encoder_of(**SHAPES[shape]), batch, first_only)
    encoder = encoder_of(**SHAPES[shape])
    native_or_skip(encoder, precision)
    found = states(encoder, batch, first_only)
    assert (found - exact).abs().max() < OFF[precision]
    assert (found - exact).square().mean().sqrt() < OFF[precision] / 5
    assert encoder.at_once is not None


@pytest.mark.parametrize("first_only", [True, False])
def test_a_text_is_the_same_to_the_bit_in_any_company_and_by_any_number_of_threads(
    precision: EncoderPrecision, first_only: bool
) -> None:
    encoder, sequences = encoder_of(), sequences_of(LENGTHS)
    native_or_skip(encoder, precision)
    alone = torch.cat([states(encoder, pack([one]), first_only) for one in sequences])
    before = torch.get_num_threads()
    try:
        # Of one thread and of several, and of several for so few texts that they share each one.
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(states(encoder, pack(sequences), first_only), alone)
            pairs = [pack(sequences[at : at + 2]) for at in range(0, len(sequences), 2)]
            found = torch.cat([states(encoder, pair, first_only) for pair in pairs])
            assert torch.equal(found, alone)
    finally:
        torch.set_num_threads(before)


def test_int8_without_kernels_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = pack(sequences_of(LENGTHS))
    by_kernels, by_torch, exact = encoder_of(), encoder_of(), encoder_of()
    native_or_skip(by_kernels, "int8")
    monkeypatch.setattr(choice, "why_not", lambda *_: "it is asked for")
    assert compute(by_torch, "int8") == "it is asked for"
    assert by_torch.at_once is None and by_torch.precision.startswith("int8, by torch")
    one, other = (states(each, batch, False) for each in (by_kernels, by_torch))
    # A number in the middle between two levels goes to the one here and to the other there, and
    # from then on the two differ by what one level of one number makes.
    assert (one - other).abs().median() < 1e-3
    assert (one - other).abs().mean() < (one - states(exact, batch, False)).abs().mean() / 5


def test_bf16_without_kernels_is_computed_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "why_not", lambda *_: "it is asked for")
    batch, encoder = pack(sequences_of(LENGTHS)), encoder_of()
    exact = states(encoder, batch, True)
    compute(encoder, "bf16")
    found = states(encoder, batch, True)
    assert found.dtype == torch.bfloat16
    assert 0 < (found - exact).abs().max() < OFF["bf16"] * 2


def test_gradients_of_words_are_still_to_be_had(
    precision: EncoderPrecision, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = pack(sequences_of([20]))
    slopes = []
    for how in ("float32", precision):
        encoder = encoder_of()
        if how == "int8":
            monkeypatch.setattr(choice, "why_not", lambda *_: "it is asked for")
        compute(encoder, how)
        nudge = torch.zeros(20, 128, requires_grad=True)
        encoder(batch, first_only=True, nudge_TH=nudge).float().square().sum().backward()
        assert nudge.grad is not None
        slopes.append(nudge.grad)
    assert (slopes[0] - slopes[1]).norm() < 0.2 * slopes[0].norm()


def test_what_is_broken_in_one_text_stays_there(precision: EncoderPrecision) -> None:
    encoder, sequences = encoder_of(), sequences_of([20, 20, 20])
    encoder.embeddings.word.weight[4, 3] = torch.nan
    sequences[1][5] = 4
    native_or_skip(encoder, precision)
    finite = states(encoder, pack(sequences), True).isfinite()
    assert finite[[0, 2]].all() and not finite[1].any()


def test_tokens_without_an_embedding_are_refused(precision: EncoderPrecision) -> None:
    encoder = encoder_of()
    native_or_skip(encoder, precision)
    for wrong in (200, -1):
        with pytest.raises(IndexError, match="no embedding for token 3 of a batch"):
            states(encoder, pack([np.array([7, 8, 9, wrong])]), True)
    with pytest.raises(IndexError, match="token 130 "):
        states(encoder, pack([np.array([5, 6]), np.full(140, 7)]), False)


def test_what_the_kernel_cannot_do_is_said(kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    odd: EncoderConfig = named_config("tiny", vocab_size=200, max_positions=16, hidden_size=60)
    assert why_not(Encoder(replace(odd, heads=2)), "float32") == (
        "a width, 60, is no multiple of 32"
    )

    class Attached:
        active = ("one",)

    encoder, attached = encoder_of(), cast(Adapter, Attached())
    encoder.embeddings.word.adapter = attached
    assert why_not(encoder, "float32") == "its words have an adapter"
    monkeypatch.setattr(native, "native", lambda: native.Native(None, "there is no compiler"))
    assert why_not(encoder_of(), "float32") == "there is no compiler"


def test_precisions_by_name() -> None:
    assert wanted("int8") == "int8" and wanted("auto") in ("float32", "bf16")
    with pytest.raises(UserError, match="does not compute in int4"):
        wanted("int4")


def test_logits_of_a_trained_classifier_are_near_those_of_float32(
    trained: Path, precision: EncoderPrecision, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    lines = write_rows(tmp_path / "rows.csv", 60).read_text(encoding="utf-8").splitlines()[1:]
    texts = [line.rsplit(",", 1)[0] for line in lines]
    exact = Classifier.load(trained / "model").logits(texts)
    classifier = Classifier.load(trained / "model")
    compute_in(classifier.model, precision)
    found = classifier.logits(texts)
    most = {"float32": 1e-5, "bf16": 0.01, "int8": 0.02}[precision]
    assert np.abs(found - exact).max() < most * np.ptp(exact)
    assert (found.argmax(1) == exact.argmax(1)).all()
    apart = np.concatenate([classifier.logits([text]) for text in texts])
    np.testing.assert_allclose(apart, found, atol=1e-6 * np.ptp(exact))


@pytest.mark.parametrize("shape", ["tiny", "ELECTRA", "n-grams"])
@pytest.mark.parametrize("head", ["tanh", "gelu", "relu"])
def test_logits_are_those_of_the_head_on_such_states(
    precision: EncoderPrecision, shape: str, head: str
) -> None:
    torch.manual_seed(1)
    config = replace(encoder_of(**SHAPES[shape]).config, head_activation=head)
    model = SequenceClassifier(config, 3).eval().requires_grad_(False)
    fill(model.encoder)
    torch.nn.init.normal_(model.dense.weight, std=0.1)
    if reason := compute_in(model, precision):
        pytest.skip(reason)
    assert (model.at_once is None) == (shape == "ELECTRA")
    sequences = sequences_of(LENGTHS)
    with torch.inference_mode():
        batch = pack(sequences)
        expected = model.classify(model.encoder(batch, first_only=True))
        torch.testing.assert_close(model(batch), expected, atol=1e-5, rtol=1e-5)
        together = outputs_of(model, sequences)
        assert together.dtype == np.float64
        np.testing.assert_array_equal(together, model(batch).double().numpy())
        alone = [outputs_of(model, [one])[0] for one in sequences]
    np.testing.assert_array_equal(together, alone)
