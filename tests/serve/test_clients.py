"""The services' own clients, against a server at another address."""

from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import openai
import pytest
import tritonclient.http as triton
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError
from huggingface_hub import InferenceClient

from igla.infer.classifier import Classifier

RUDE, KIND = "глупый гадкий дом", "добрый славный дом"


@pytest.fixture(scope="module")
def scores(trained: Path) -> np.ndarray:
    """What the model says to RUDE and KIND when it is asked directly."""
    return Classifier.load(trained / "model").probabilities([RUDE, KIND])


def test_googles_client_asks_perspectives_methods(server: str, scores: np.ndarray) -> None:
    asked = {
        "comment": {"text": RUDE},
        "requestedAttributes": {"TOXICITY": {}},
        "languages": ["en"],
        "doNotStore": True,
        "clientToken": "17",
    }
    client = build(
        *("commentanalyzer", "v1alpha1"),
        developerKey="key",
        discoveryServiceUrl=f"{server}/$discovery/rest?version=v1alpha1",
        static_discovery=False,
    )
    with client:
        answer = client.comments().analyze(body=asked).execute()
        with pytest.raises(HttpError) as refused:
            client.comments().analyze(body=asked | {"requestedAttributes": {"FUN": {}}}).execute()
    found = answer["attributeScores"]["TOXICITY"]
    assert found["summaryScore"]["type"] == "PROBABILITY"
    assert found["summaryScore"]["value"] == pytest.approx(scores[0, 1], abs=1e-6)
    assert found["spanScores"][0]["end"] == len(RUDE)
    assert (answer["languages"], answer["detectedLanguages"]) == (["en"], ["ru"])
    assert answer["clientToken"] == "17"
    assert refused.value.status_code == 400
    assert "FUN" in refused.value.reason


def test_corals_moderation_phase_is_answered(server: str) -> None:
    asked = {
        "comment": {"text": KIND},
        "context": {"entries": [{"text": "статья"}]},
        "languages": ["en"],
        "doNotStore": True,
        "requestedAttributes": {"TOXICITY": {}},
        "clientToken": "comment:e53cbeba",
        "communityId": "Coral:http://localhost:8080/",
    }
    answer = httpx.post(f"{server}/v1alpha1/comments:analyze?key=k", json=asked, timeout=30)
    assert answer.json()["attributeScores"]["TOXICITY"]["summaryScore"]["value"] < 0.5


def test_openais_client_moderates(server: str, scores: np.ndarray) -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    with openai.OpenAI(base_url=f"{server}/v1", api_key="key") as client:
        answer = client.moderations.create(model="omni-moderation-latest", input=[RUDE, KIND])
        parts = client.moderations.create(input=[{"type": "text", "text": RUDE}])
        with pytest.raises(openai.BadRequestError, match="Images"):
            client.moderations.create(input=[picture])
    first, second = answer.results
    assert first.flagged and first.categories.harassment and not second.flagged
    assert first.category_scores.harassment == pytest.approx(scores[0, 1], abs=1e-6)
    assert first.category_scores.sexual_minors == 0 and not first.categories.violence
    assert parts.results[0].flagged


@pytest.mark.parametrize("path", ["", "/predict"])
def test_hugging_faces_client_classifies(path: str, server: str, scores: np.ndarray) -> None:
    found = InferenceClient(model=f"{server}{path}").text_classification(RUDE)
    first = found[0] if isinstance(found, list) else found  # by the client's version
    assert first.label == "rude"
    assert first.score == pytest.approx(scores[0, 1], abs=1e-6)


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_infers(binary: bool, server: str, scores: np.ndarray) -> None:
    with closing(triton.InferenceServerClient(urlsplit(server).netloc)) as client:
        infer_with(client, binary, scores)


def infer_with(client: triton.InferenceServerClient, binary: bool, scores: np.ndarray) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("default")
    version = client.get_model_metadata("default")["versions"][0]
    texts = triton.InferInput("text", [2], "BYTES")
    texts.set_data_from_numpy(np.array([RUDE, KIND], dtype=object), binary_data=binary)
    found = client.infer("default", [texts], model_version=version, request_id="17")
    np.testing.assert_allclose(found.as_numpy("probabilities"), scores, atol=1e-6)
    assert found.as_numpy("label").tolist() == ["rude", "kind"]
    assert found.get_response()["id"] == "17"
    with pytest.raises(triton.InferenceServerException, match="no model other"):
        client.infer("other", [texts])
    with pytest.raises(triton.InferenceServerException, match="no version 9 of model default"):
        client.infer("default", [texts], model_version="9")


def test_what_is_served_is_told(server: str) -> None:
    told = httpx.get(f"{server}/info").json()
    assert told["model_type"]["classifier"]["id2label"] == {"0": "kind", "1": "rude"}
    answer = httpx.post(f"{server}/predict", json={"inputs": KIND})
    assert answer.headers["x-igla-version"] == f"default/{told['model_sha']}"
