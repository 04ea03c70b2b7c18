"""The servers that igla's is measured against.

    python server.py KIND FOLDER PORT

pipeline  FastAPI around transformers' text-classification pipeline, as its documentation has it
int8      igla's own web layer, with ONNX Runtime's dynamic INT8 in place of igla's model
nothing   igla's own web layer, with zeros in place of a model: what that layer costs
"""

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from torch import Tensor, nn

from igla.data.batch import PackedBatch
from igla.serve.app import create_app
from igla.serve.models import open_model
from igla.serve.settings import Settings


class Zeros(nn.Module):
    """Takes no time."""

    def __init__(self, classes: int):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(classes))

    def forward(self, batch: PackedBatch) -> Tensor:
        return self.logits.expand(len(batch.cu_seqlens) - 1, -1)


class Int8(nn.Module):
    """The model exported to ONNX, its matrices in INT8; batches padded to their longest."""

    def __init__(self, folder: Path):
        super().__init__()
        import onnxruntime

        self.device = nn.Parameter(torch.zeros(1))  # which the engine asks for
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = onnxruntime.InferenceSession(exported(folder), options)

    def forward(self, batch: PackedBatch) -> Tensor:
        ends = batch.cu_seqlens.tolist()
        pieces = [batch.tokens[a:b] for a, b in pairwise(ends)]
        ids = nn.utils.rnn.pad_sequence(pieces, batch_first=True)
        there = nn.utils.rnn.pad_sequence([torch.ones_like(one) for one in pieces], True)
        given = {"input_ids": ids.long().numpy(), "attention_mask": there.long().numpy()}
        [logits] = self.session.run(None, given)
        return torch.from_numpy(logits)


def exported(folder: Path) -> str:
    """The folder's model as an ONNX file with INT8 matrices, made beside it."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from transformers import AutoModelForSequenceClassification

    whole, small = folder / "model.onnx", folder / "model-int8.onnx"
    if not small.exists():
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, attn_implementation="eager"
        ).eval()
        model.config.return_dict = False
        ids = torch.ones(2, 8, dtype=torch.long)
        names = ["input_ids", "attention_mask"]
        axes = {name: {0: "batch", 1: "length"} for name in names} | {"logits": {0: "batch"}}
        torch.onnx.export(
            model,
            (ids, torch.ones_like(ids)),
            str(whole),
            input_names=names,
            output_names=["logits"],
            dynamic_axes=axes,
            dynamo=False,
        )
        quantize_dynamic(str(whole), str(small), weight_type=QuantType.QInt8)
    return str(small)


def pipeline_app(folder: Path) -> FastAPI:
    """What one writes who follows the documentation."""
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(folder), top_k=None)
    app = FastAPI()

    @app.post("/predict")
    def predict(body: dict[str, str]) -> Any:
        return classify(body["inputs"], truncation=True, max_length=128)

    @app.get("/health")
    def health() -> None: ...

    return app


def igla_app(folder: Path, model: nn.Module | None) -> FastAPI:
    served = open_model(folder, "default")
    if model is not None:
        served.classifier.model = model.eval()  # type: ignore[assignment]
    return create_app([served], Settings.model_validate({"log": {"requests": False}}))


def main() -> None:
    kind, folder, port = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if kind == "pipeline":
        app = pipeline_app(folder)
    elif kind == "int8":
        app = igla_app(folder, Int8(folder))
    else:
        app = igla_app(folder, Zeros(2))
    uvicorn.run(app, port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
