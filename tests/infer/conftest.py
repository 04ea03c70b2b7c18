"""Small decoders for the tests of generation."""

from collections.abc import Callable

import pytest
import torch

from igla.model.decoder import Decoder, DecoderConfig

TINY = dict(
    vocab_size=61,
    hidden_size=32,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=8,
    intermediate_size=64,
    max_positions=512,
)


@pytest.fixture(scope="session")
def decoder() -> Callable[..., Decoder]:
    """A decoder of Llama's shape with random weights, some fields changed; large weights, so that
    its choices are far apart."""

    def make(seed: int = 0, std: float = 0.3, **changes: object) -> Decoder:
        torch.manual_seed(seed)
        model = Decoder(DecoderConfig(**(TINY | changes)))
        for parameter in model.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=std)
            else:
                parameter.data += 0.1 * torch.randn_like(parameter)
        return model.eval()

    return make
