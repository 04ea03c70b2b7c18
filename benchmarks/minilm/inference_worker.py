"""Scores texts with a classifier: all at once, and one by one.

Job: runtime (igla, transformers, onnx), model (folder that igla has written; with ONNX files), file
(of ONNX), library (of transformers' products), texts (JSON file), singles (how many one by one).
From text to probabilities: tokenizing is part of it.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minilm.workers import Answer, Job, answer

Score = Callable[[Sequence[str]], np.ndarray]
BATCH = 32


def work(job: Job) -> Answer:
    texts = json.loads(Path(job["texts"]).read_text(encoding="utf-8"))
    score: Score = RUNTIMES[job["runtime"]](job)
    score(texts[:BATCH])
    begun = time.perf_counter()
    probabilities = score(texts)
    seconds = time.perf_counter() - begun
    latencies = []
    for text in texts[: job["singles"]]:
        begun = time.perf_counter()
        score([text])
        latencies.append(time.perf_counter() - begun)
    return {
        "rows_per_second": len(texts) / seconds,
        "p50": float(np.percentile(latencies, 50)),
        "p99": float(np.percentile(latencies, 99)),
        "probabilities": probabilities[:, 1].tolist(),
    }


def igla(job: Job) -> Score:
    from igla import TextClassifier

    classifier = TextClassifier.load(job["model"])
    # Calibrated probabilities would differ from the others' by that alone; it costs nothing.
    classifier.classifier_.rule = replace(classifier.classifier_.rule, temperature=1.0)
    return classifier.predict_proba


def transformers(job: Job) -> Score:
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_float32_matmul_precision(job["library"])
    model = AutoModelForSequenceClassification.from_pretrained(job["model"]).eval()
    tokenize = _tokenizer(job)

    @torch.inference_mode()
    def run(texts: Sequence[str]) -> np.ndarray:
        logits: np.ndarray = model(**tokenize(texts, "pt")).logits.numpy()
        return logits

    return _in_batches(run)


def onnx(job: Job) -> Score:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(Path(job["model"]) / job["file"]), providers=["CPUExecutionProvider"]
    )
    tokenize = _tokenizer(job)
    names = {one.name for one in session.get_inputs()}

    def run(texts: Sequence[str]) -> np.ndarray:
        inputs = {name: value for name, value in tokenize(texts, "np").items() if name in names}
        logits: np.ndarray = session.run(None, inputs)[0]
        return logits

    return _in_batches(run)


def _tokenizer(job: Job) -> Callable[[Sequence[str], str], Any]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    rule = json.loads((Path(job["model"]) / "igla.json").read_text(encoding="utf-8"))
    return lambda texts, kind: tokenizer(
        list(texts),
        padding=True,
        truncation=True,
        max_length=rule["max_length"],
        return_tensors=kind,
    )


def _in_batches(run: Callable[[Sequence[str]], np.ndarray]) -> Score:
    """In batches of texts of similar length, as one does who wants it fast."""

    def score(texts: Sequence[str]) -> np.ndarray:
        order = np.argsort([len(text) for text in texts])
        parts = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        logits = np.concatenate([run([texts[row] for row in part]) for part in parts])
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = np.empty_like(weights)
        probabilities[order] = weights / weights.sum(axis=1, keepdims=True)
        return probabilities

    return score


RUNTIMES: dict[str, Callable[[Job], Score]] = {
    "igla": igla,
    "transformers": transformers,
    "onnx": onnx,
}

if __name__ == "__main__":
    answer(work)
