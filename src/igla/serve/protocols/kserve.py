"""The Open Inference Protocol of KServe and Triton (v2), over HTTP, with its binary extension."""

import math
import re
import struct
from collections.abc import Iterator
from importlib.metadata import version as version_of
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError

from igla.serve import admin
from igla.serve.models import Served
from igla.serve.scoring import Scored
from igla.serve.service import Refused, described, route_class, service_of, version_header

_HEADER_LENGTH = "inference-header-content-length"


def refusal(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status)


router = APIRouter(prefix="/v2", route_class=route_class(refusal), tags=["KServe v2"])


class Tensor(BaseModel):
    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=8)]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class Output(BaseModel):
    name: str


class InferRequest(BaseModel):
    id: str | None = None
    inputs: list[Tensor]
    outputs: list[Output] | None = None


class LoadParameters(BaseModel):
    folder: str | None = None


class LoadRequest(BaseModel):
    parameters: LoadParameters = LoadParameters()


@router.get("")
async def server() -> dict[str, Any]:
    """Name, version and extensions of the server."""
    extensions = ["binary_tensor_data", "model_repository"]
    return {"name": "igla", "version": version_of("igla"), "extensions": extensions}


@router.get("/health/live")
async def live() -> dict[str, bool]:
    """200 while the process runs."""
    return {"live": True}


@router.get("/health/ready")
async def ready(request: Request) -> dict[str, bool]:
    """200 while requests are taken."""
    service_of(request).check_ready()
    return {"ready": True}


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}")
async def model(request: Request, name: str, version: str | None = None) -> dict[str, Any]:
    """What a model takes and gives."""
    service = service_of(request)
    served = service.model(name, version)
    return {
        "name": name,
        "versions": [one.version for one in service.models.of(name)],
        "platform": "igla",
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
        "outputs": _described_outputs(served),
        "parameters": {"classes": list(served.classes)} if served.scores else {},
    }


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready")
async def model_ready(request: Request, name: str, version: str | None = None) -> dict[str, Any]:
    """200 when the model answers."""
    service_of(request).model(name, version)
    service_of(request).check_ready()
    return {"name": name, "ready": True}


@router.post("/repository/index")
async def index(request: Request) -> list[dict[str, str]]:
    """The models that can be asked."""
    models = service_of(request).models.all
    return [{"name": one.name, "version": one.version, "state": "READY"} for one in models]


@router.post("/repository/models/{name}/load")
async def load(request: Request, name: str) -> dict[str, str]:
    """Load a model anew from its folder, or from the one in parameters.folder."""
    served = await admin.load(service_of(request), request, name, await _parameter(request))
    return {"name": served.name, "version": served.version}


@router.post("/repository/models/{name}/unload")
async def unload(request: Request, name: str) -> dict[str, str]:
    """Take a model away with all its versions."""
    admin.unload(service_of(request), request, name, None)
    return {"name": name}


@router.post("/models/{name}/infer")
@router.post("/models/{name}/versions/{version}/infer")
async def infer(request: Request, name: str, version: str | None = None) -> JSONResponse:
    """Probabilities, and the label of each text; or embeddings of length 1."""
    service = service_of(request)
    served = service.model(name, version)
    body, rest = _parts(await request.body(), request.headers.get(_HEADER_LENGTH))
    try:
        asked = InferRequest.model_validate_json(body)
    except ValidationError as error:
        raise Refused(400, described(error)) from None
    texts = _texts(asked, rest)
    known = {one["name"] for one in _described_outputs(served)}
    wanted = known if asked.outputs is None else {one.name for one in asked.outputs}
    if unknown := wanted - known:
        raise Refused(400, f"There is no output {min(unknown)}.")
    if served.scores:
        outputs = _of_scores(await service.score(request, served, texts))
    else:
        embedded = await service.embed(request, served, texts, normalize=True)
        outputs = [_tensor("embedding", "FP32", embedded.vectors)]
    outputs = [one for one in outputs if one["name"] in wanted]
    content = {"model_name": name, "model_version": served.version, "outputs": outputs}
    if asked.id is not None:
        content["id"] = asked.id
    return JSONResponse(content, headers=version_header(served))


def _described_outputs(served: Served) -> list[dict[str, Any]]:
    if not served.scores:
        return [{"name": "embedding", "datatype": "FP32", "shape": [-1, served.embedder.width]}]
    return [
        {"name": "probabilities", "datatype": "FP64", "shape": [-1, len(served.classes)]},
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
    ]


def _of_scores(found: Scored) -> list[dict[str, Any]]:
    labels = found.served.classifier.rule.names(found.probabilities)
    return [
        _tensor("probabilities", "FP64", found.probabilities),
        {"name": "label", "datatype": "BYTES", "shape": [len(labels)], "data": labels},
    ]


def _tensor(name: str, datatype: str, values: np.ndarray) -> dict[str, Any]:
    shape, data = list(values.shape), values.ravel().tolist()
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


async def _parameter(request: Request) -> str | None:
    """The folder that a request to load names, if any; its body may be empty."""
    try:
        asked = LoadRequest.model_validate_json(await request.body() or b"{}")
    except ValidationError as error:
        raise Refused(400, described(error)) from None
    return asked.parameters.folder


def _parts(body: bytes, header_length: str | None) -> tuple[bytes, bytes]:
    """The JSON of a request, and the binary tensors behind it."""
    if header_length is None:
        return body, b""
    if not re.fullmatch(r"[0-9]{1,9}", header_length) or int(header_length) > len(body):
        raise Refused(400, "Inference-Header-Content-Length does not fit the body.")
    return body[: int(header_length)], body[int(header_length) :]


def _texts(asked: InferRequest, rest: bytes) -> list[str]:
    if len(asked.inputs) != 1 or asked.inputs[0].name != "text":
        raise Refused(400, "The model has one input, text.")
    tensor = asked.inputs[0]
    if tensor.datatype != "BYTES":
        raise Refused(400, f"The input text is of BYTES, not of {tensor.datatype}.")
    if tensor.data is not None:
        found = [text for one in tensor.data for text in (one if isinstance(one, list) else [one])]
    else:
        size = tensor.parameters.get("binary_data_size")
        if size != len(rest):
            raise Refused(400, "The input text has no data, or not as much as it says.")
        found = list(_elements(rest))
    if not all(isinstance(text, str) for text in found):
        raise Refused(400, "The input text holds something that is no text.")
    if math.prod(tensor.shape) != len(found):
        raise Refused(400, f"The shape {tensor.shape} is not that of {len(found)} texts.")
    return found


def _elements(data: bytes) -> Iterator[str]:
    """Texts, each after its length in four bytes, the lowest first."""
    place = 0
    while place < len(data):
        if place + 4 > len(data):
            raise Refused(400, "The binary data end in the middle of a length.")
        (length,) = struct.unpack_from("<I", data, place)
        place += 4 + length
        if place > len(data):
            raise Refused(400, "The binary data end in the middle of a text.")
        try:
            yield data[place - length : place].decode()
        except UnicodeDecodeError:
            raise Refused(400, "The binary data hold bytes that are not UTF-8.") from None
