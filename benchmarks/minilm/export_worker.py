"""A classifier as ONNX in float32 and, quantized dynamically, in INT8. Job: model (folder)."""

from pathlib import Path

import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from minilm.workers import Answer, Job, answer

FLOAT, INT8 = "model.onnx", "model.int8.onnx"


class Logits(nn.Module):
    """The model with two plain inputs and one output."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def work(job: Job) -> Answer:
    folder = Path(job["model"])
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager")
    ids = torch.randint(5, 100, (2, 16))
    names = ("input_ids", "attention_mask")
    with torch.inference_mode():
        torch.onnx.export(
            Logits(model.eval()),
            (ids, torch.ones_like(ids)),
            str(folder / FLOAT),
            input_names=list(names),
            output_names=["logits"],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in names},
            dynamo=False,
        )
    quantize_dynamic(folder / FLOAT, folder / INT8, weight_type=QuantType.QInt8)
    return {}


if __name__ == "__main__":
    answer(work)
