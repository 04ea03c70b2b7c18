"""What an encoder computes in when all that it does is to answer."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from igla.errors import UserError
from igla.infer.native_encoder import NativeClassifier, NativeEncoder, why_not
from igla.model.embedding import PooledEncoder
from igla.model.encoder import SequenceClassifier
from igla.model.parts import Linear
from igla.ops.linear import linear
from igla.ops.narrow import keep_copy
from igla.ops.panels import round_rows
from igla.ops.products import probe
from igla.ops.weights import pack_weight

EncoderPrecision = Literal["float32", "bf16", "int8"]


class RoundedLinear(Linear):
    """A linear layer that computes with what int8 leaves of its weights and of its input's rows,
    in the input's type: the numbers of the kernels' int8, and none of their speed."""

    def __init__(self, layer: Linear):
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        rounded = pack_weight(layer.whole_weight(), None, "int8").dense()
        self.weight = nn.Parameter(rounded, requires_grad=False)
        self.bias, self.adapter = layer.bias, None

    @property
    def plain(self) -> bool:
        return False

    def times_weight(self, input: Tensor) -> Tensor:
        return linear(round_rows(input), self.weight, None)


def wanted(precision: str) -> EncoderPrecision:
    """The precision of a name; auto: bf16 where this processor's products are faster in it.
    UserError where encoders have no such."""
    if precision == "auto":
        return "bf16" if probe().bf16_is_better else "float32"
    for known in get_args(EncoderPrecision):
        if precision == known:
            return known
    raise UserError(f"An encoder does not compute in {precision}: choose float32, bf16 or int8.")


def compute_in(
    model: SequenceClassifier | PooledEncoder, precision: EncoderPrecision
) -> str | None:
    """Have a model answer in a precision from now on; its weights must not change any more.

    By a kernel where there is one for it, else by torch, in the same precision; then the reason is
    given back. Gradients (infer.gradients) are computed by torch in any event, for int8 in float32.
    """
    encoder = model.encoder
    reason = why_not(encoder, precision)
    encoder.precision = precision
    encoder.compute_dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    if reason is None and isinstance(model, SequenceClassifier):
        classifier = NativeClassifier(model, precision)
        encoder.at_once, model.at_once = classifier, classifier.logits if classifier.whole else None
    elif reason is None:
        encoder.at_once = NativeEncoder(encoder, precision)
    elif precision == "int8":
        encoder.precision = f"int8, by torch, which is slower: {reason}"
        for module in list(encoder.layers.modules()):
            for name, layer in list(module.named_children()):
                if isinstance(layer, Linear):
                    setattr(module, name, RoundedLinear(layer))
    elif precision == "bf16":
        for module in encoder.modules():
            if isinstance(module, Linear):
                keep_copy(module.weight)
    return reason
