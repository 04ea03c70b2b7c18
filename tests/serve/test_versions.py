"""Models that are loaded, replaced and taken away while the server runs."""

import asyncio
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from safetensors.numpy import load_file, save_file

from igla.errors import UserError
from igla.infer.classifier import Classifier
from igla.serve.keys import add_key
from igla.serve.models import Models, Served

TEXT = "глупый гадкий дом"


@pytest.fixture
def other(trained: Path, tmp_path: Path) -> Path:
    """A model folder with the other opinion."""
    folder = tmp_path / "other"
    shutil.copytree(trained / "model", folder)
    (folder / "manifest.json").unlink(missing_ok=True)
    weights = load_file(folder / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = -weights[name]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, dict[str, str], dict[str, str]]:
    """A file of keys, and the headers of one for admin and of one for scoring."""
    file = tmp_path / "keys.json"
    admin = add_key(file, "admin", ("score", "admin"), None)
    plain = add_key(file, "plain", ("score",), None)
    return file, {"x-api-key": admin}, {"x-api-key": plain}


def probability(folder: Path) -> float:
    return float(Classifier.load(folder).probabilities([TEXT])[0, 1])


def served(name: str, version: str) -> Served:
    return Served(name, version, Path(name), model=None)  # type: ignore[arg-type]


def test_of_each_name_the_newest_version_answers_and_the_oldest_goes() -> None:
    models = Models([served("a", "1"), served("b", "1")], most=2)
    assert models.put(served("a", "2")) == []
    [gone] = models.put(served("a", "3"))
    assert gone.version == "1"
    assert [(one.name, one.version) for one in models.all] == [("a", "3"), ("a", "2"), ("b", "1")]
    again = models.find("a", "2")
    assert again is not None
    assert models.put(again) == [] and models.default is again
    assert models.find("a", "1") is None and models.find("c") is None
    models.drop("b", None)
    assert models.find("b") is None
    models.drop("a", "2")
    with pytest.raises(UserError, match="default"):
        models.drop("a", None)
    assert models.default.version == "3"


def test_another_version_is_loaded_beside_the_first(
    serve: Callable[..., Any], trained: Path, other: Path, keys: Any
) -> None:
    file, admin, plain = keys
    with serve(str(trained), "--keys", str(file)) as running:
        url = f"{running.address}/igla/v1"
        first = httpx.get(f"{url}/models").json()["models"][0]["version"]
        load = {"folder": str(other)}
        for headers, status in ((None, 401), (plain, 403)):
            answer = httpx.post(f"{url}/models/default/load", json=load, headers=headers)
            assert answer.status_code == status
        second = httpx.post(f"{url}/models/default/load", json=load, headers=admin).json()
        assert second["version"] != first
        for version, folder in ((None, other), (first, trained / "model")):
            asked = {"texts": [TEXT], "version": version}
            answer = httpx.post(f"{url}/score", json=asked, headers=plain).json()
            assert answer["version"] == (version or second["version"])
            found = answer["results"][0]["labels"][1]["probability"]
            assert found == pytest.approx(probability(folder), abs=1e-6)
        gone = httpx.post(
            f"{url}/models/default/unload", json={"version": first}, headers=admin
        ).json()
        assert gone == {"unloaded": [{"name": "default", "version": first}]}
        asked = {"texts": [TEXT], "version": first}
        assert httpx.post(f"{url}/score", json=asked, headers=plain).status_code == 404
        last = httpx.post(f"{url}/models/default/unload", json={}, headers=admin)
        assert last.status_code == 409 and "default" in last.json()["error"]


def test_what_cannot_be_served_is_refused_and_the_old_version_stays(
    serve: Callable[..., Any], trained: Path, other: Path, keys: Any, tmp_path: Path
) -> None:
    file, admin, plain = keys
    (tmp_path / "empty").mkdir()
    weights = (other / "model.safetensors").read_bytes()
    (other / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with serve(str(trained), "--keys", str(file)) as running:
        url = f"{running.address}/igla/v1/models/default/load"
        for folder in (other, tmp_path / "empty", tmp_path / "none", "/etc", "a" * 5000):
            answer = httpx.post(url, json={"folder": str(folder)}, headers=admin, timeout=30)
            assert answer.status_code == 422, answer.text
            assert "\n" not in answer.json()["error"]
        unknown = httpx.post(url.replace("default", "new"), json={}, headers=admin)
        assert unknown.status_code == 422 and "which folder" in unknown.json()["error"]
        asked = httpx.post(f"{running.address}/predict", json={"inputs": TEXT}, headers=plain)
        score = next(one["score"] for one in asked.json() if one["label"] == "rude")
        assert score == pytest.approx(probability(trained / "model"), abs=1e-6)


def test_tritons_client_loads_and_unloads(
    serve: Callable[..., Any], trained: Path, other: Path, keys: Any
) -> None:
    file, admin, _ = keys
    with (
        serve(str(trained), f"second={other}", "--keys", str(file)) as running,
        closing(triton.InferenceServerClient(urlsplit(running.address).netloc)) as client,
    ):
        index = client.get_model_repository_index()
        assert [(one["name"], one["state"]) for one in index] == [
            ("default", "READY"),
            ("second", "READY"),
        ]
        with pytest.raises(triton.InferenceServerException, match="key is needed"):
            client.load_model("second")
        client.load_model("second", headers=admin)
        client.unload_model("second", headers=admin)
        assert not client.is_model_ready("second") and client.is_model_ready("default")


def test_without_keys_nobody_loads(server: str) -> None:
    answer = httpx.post(f"{server}/igla/v1/models/default/load", json={"folder": "/etc"})
    assert answer.status_code == 403 and "without keys" in answer.json()["error"]


def test_sighup_loads_what_the_folder_holds_now(
    serve: Callable[..., Any], trained: Path, other: Path, tmp_path: Path
) -> None:
    link = tmp_path / "current"
    link.symlink_to(trained / "model")
    with serve(str(link)) as running:
        first = httpx.get(f"{running.address}/info").json()["model_sha"]
        link.unlink()
        link.symlink_to(other)
        running.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + 30
        while httpx.get(f"{running.address}/info").json()["model_sha"] == first:
            assert time.monotonic() < until
            time.sleep(0.05)
        (other / "config.json").unlink()
        second = httpx.get(f"{running.address}/info").json()["model_sha"]
        running.process.send_signal(signal.SIGHUP)
        while True:
            running.said.seek(0)
            if "not loaded anew" in running.said.read():
                break
            assert time.monotonic() < until
            time.sleep(0.05)
        assert httpx.get(f"{running.address}/info").json()["model_sha"] == second


def test_under_load_each_answer_is_of_the_version_it_names(
    serve: Callable[..., Any], trained: Path, other: Path, keys: Any
) -> None:
    file, admin, plain = keys
    folders = [trained / "model", other]
    ended = False

    async def asking(client: httpx.AsyncClient, url: str, found: list[tuple[str, float]]) -> None:
        while not ended:
            answer = await client.post(f"{url}/score", json={"texts": [TEXT]}, headers=plain)
            assert answer.status_code == 200, answer.text
            content = answer.json()
            label = content["results"][0]["labels"][1]
            found.append((content["version"], label["probability"]))

    async def reloading(address: str) -> tuple[dict[str, Path], list[tuple[str, float]]]:
        nonlocal ended
        found: list[tuple[str, float]] = []
        of_version: dict[str, Path] = {}
        url = f"{address}/igla/v1"
        async with httpx.AsyncClient(timeout=60) as client:
            askers = [asyncio.ensure_future(asking(client, url, found)) for _ in range(8)]
            for turn in range(60):
                folder = folders[turn % 2]
                load = {"folder": str(folder)}
                answer = await client.post(f"{url}/models/default/load", json=load, headers=admin)
                assert answer.status_code == 200, answer.text
                of_version[answer.json()["version"]] = folder
            ended = True
            await asyncio.gather(*askers)
        return of_version, found

    with serve(str(trained), "--keys", str(file)) as running:
        of_version, found = asyncio.run(reloading(running.address))
    assert len(of_version) == 2
    right = {version: probability(folder) for version, folder in of_version.items()}
    assert {version for version, _ in found} == set(right)
    scores = np.array([[score, right[version]] for version, score in found])
    np.testing.assert_allclose(scores[:, 0], scores[:, 1], atol=1e-5)
