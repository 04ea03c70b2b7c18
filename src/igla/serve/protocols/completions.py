"""OpenAI's endpoints that write texts: completions and chat, whole or as a stream of events."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from igla.errors import UserError
from igla.infer.generator import Generator
from igla.serve.models import Served
from igla.serve.protocols.openai import refusal as refusal
from igla.serve.protocols.writing_answers import Chat, Completions, Envelope, Written, usage
from igla.serve.protocols.writing_requests import ChatRequest, CompletionRequest
from igla.serve.service import (
    Refused,
    Service,
    note,
    route_class,
    service_of,
    version_header,
)
from igla.serve.tokens import beside
from igla.serve.writing import Order, Piece

# OpenAI's own for completions.
_FEW_TOKENS = 16
# What a chat that names no length counts for while it waits: few answers are as long as may be.
_USUAL = 256

router = APIRouter(prefix="/v1", route_class=route_class(refusal), tags=["OpenAI"])


@router.post("/completions", response_model=None)
async def complete(request: Request, body: CompletionRequest) -> Response:
    """What follows a text, or each of several."""
    service = service_of(request)
    service.check_key(request, "score")  # before anything is computed for it
    served = _served(service, body.model)
    generator, prompts = served.generator, body.prompts
    texts = [one if isinstance(one, str) else "" for one in prompts]
    service.check_inputs(request, served, texts)
    tokens = await beside(texts, partial(_tokens, prompts, generator))
    orders = await _orders(body, generator, tokens, body.max_tokens or _FEW_TOKENS)
    shape = Completions(generator.tokenizer, logprobs=body.logprobs is not None)
    if body.stream:
        if len(orders) > 1:
            raise Refused(400, "A stream is of one prompt: send several requests.")
        return await _streamed(request, served, orders[0], shape, body.tells_usage)
    echoed = [generator.tokenizer.decode(prompt) for prompt in tokens] if body.echo else None
    return await _whole(request, served, orders, shape, echoed)


@router.post("/chat/completions", response_model=None)
async def chat(request: Request, body: ChatRequest) -> Response:
    """What the assistant says next."""
    service = service_of(request)
    service.check_key(request, "score")
    served = _served(service, body.model)
    generator = served.generator
    messages = [message.as_template_reads() for message in body.messages]
    texts = [message["content"] for message in messages]
    service.check_inputs(request, served, ["\n".join(texts)])  # a conversation is one text
    try:
        prompt = await beside(texts, partial(generator.conversation, messages))
    except UserError as error:
        raise Refused(400, f"messages: {error}") from None
    most = body.most_tokens or service.room(served, len(prompt), body.n)
    [order] = await _orders(body, generator, [prompt], most)
    if not body.most_tokens:
        order = replace(order, expected=min(most, _USUAL))
    shape = Chat(generator.tokenizer, logprobs=bool(body.logprobs))
    if body.stream:
        return await _streamed(request, served, order, shape, body.tells_usage)
    return await _whole(request, served, [order], shape)


@router.get("/models")
async def models(request: Request) -> dict[str, Any]:
    """What is served."""
    held = service_of(request).models
    newest = [held.of(name)[0] for name in dict.fromkeys(one.name for one in held.all)]
    return {"object": "list", "data": [_described(one) for one in newest]}


@router.get("/models/{name}")
async def model(request: Request, name: str) -> dict[str, Any]:
    """One of them."""
    return _described(_served(service_of(request), name))


def _described(served: Served) -> dict[str, Any]:
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "igla",
    }


def _served(service: Service, asked: str) -> Served:
    name, _, version = asked.partition("/")
    served = service.models.find(name, version or None)
    if served is None:
        raise Refused(404, f"The model {asked} does not exist here.")
    return served


def _tokens(prompts: Sequence[str | list[int]], generator: Generator) -> list[list[int]]:
    return [
        generator.prompt(one) if isinstance(one, str) else _checked(one, generator)
        for one in prompts
    ]


def _checked(tokens: list[int], generator: Generator) -> list[int]:
    """Tokens of a prompt, which the model has to know."""
    known = generator.model.config.vocab_size
    for token in tokens:
        if not 0 <= token < known:
            raise Refused(400, f"prompt: there is no token {token}; the model has {known}.")
    return tokens


async def _orders(
    body: CompletionRequest | ChatRequest,
    generator: Generator,
    prompts: Sequence[list[int]],
    most: int,
) -> list[Order]:
    """One for each prompt; a grammar is made beside the event loop, for it may take a while."""

    def make() -> list[Order]:
        return [_order(body, generator, prompt, most) for prompt in prompts]

    return await asyncio.to_thread(make) if _holds(body) else make()


def _order(
    body: CompletionRequest | ChatRequest, generator: Generator, prompt: list[int], most: int
) -> Order:
    try:
        held = body.constraint(generator.grammars) if _holds(body) else None
        decodings = [
            generator.decoding(
                body.sampling(number),
                constraint=None if held is None else held.copy(),
                logprobs=body.alternatives,
            )
            for number in range(body.n)
        ]
    except UserError as error:
        raise Refused(400, str(error)) from None
    return Order(prompt, decodings, most, body.stops)


def _holds(body: CompletionRequest | ChatRequest) -> bool:
    """Whether anything is asked of the texts' form."""
    asked = body.response_format if isinstance(body, ChatRequest) else None
    return body.regex is not None or (asked is not None and asked.type != "text")


async def _whole(
    request: Request,
    served: Served,
    orders: Sequence[Order],
    shape: Completions | Chat,
    echoed: list[str] | None = None,
) -> Response:
    service = service_of(request)

    async def written(order: Order) -> list[Written]:
        found = [Written() for _ in order.decodings]
        async with aclosing(service.pieces(served, order)) as pieces:
            async for piece in pieces:
                found[piece.index].add(piece)
        return found

    async def all_written() -> list[list[Written]]:
        tasks = [asyncio.ensure_future(written(order)) for order in orders]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            return [task.result() for task in (tasks if len(done) == len(tasks) else done)]
        finally:
            for task in tasks:
                task.cancel()

    found = await service.written(request, all_written())
    choices: list[dict[str, Any]] = []
    for number, texts in enumerate(found):
        for one in texts:
            one.text = one.text if echoed is None else echoed[number] + one.text
            choices.append(shape.choice(len(choices), one))
    used = usage(
        sum(len(order.prompt) for order in orders),
        sum(len(one.tokens) for texts in found for one in texts),
    )
    note(request, **used)
    content = Envelope(served, shape).whole(choices, used)
    return JSONResponse(content, headers=version_header(served))


async def _streamed(
    request: Request,
    served: Served,
    order: Order,
    shape: Completions | Chat,
    tells_usage: bool,
) -> Response:
    """The answer begins with the first piece: until then it can be refused by its status."""
    service = service_of(request)
    pieces = service.pieces(served, order)
    first = await service.written(request, anext(pieces))
    events = _events(request, served, order, shape, tells_usage, first, pieces)
    headers = {**version_header(served), "cache-control": "no-cache"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def _events(
    request: Request,
    served: Served,
    order: Order,
    shape: Completions | Chat,
    tells_usage: bool,
    first: Piece,
    rest: AsyncGenerator[Piece],
) -> AsyncIterator[str]:
    envelope, tokens = Envelope(served, shape), 0
    for index in range(len(order.decodings)):
        if (opening := shape.opening(index)) is not None:
            yield _event(envelope.part([opening]))
    try:
        async with aclosing(_from(first, rest)) as pieces:
            async for piece in pieces:
                tokens += len(piece.tokens)
                told = Written(piece.text, [*piece.tokens], piece.finished)
                if told.text or told.finished or told.tokens:
                    yield _event(envelope.part([shape.chunk(piece.index, told)]))
    except Exception as error:  # the status is sent: what goes wrong now can only be told inside
        if not isinstance(error, Refused):
            logging.getLogger("uvicorn.error").exception("A stream has failed.")
            error = Refused(500, "The server has failed at this request; its log says how.")
        yield _event(json.loads(bytes(refusal(error.status, error.message).body)))
        return
    used = usage(len(order.prompt), tokens)
    note(request, **used)
    if tells_usage:
        yield _event(envelope.part([], used))
    yield "data: [DONE]\n\n"


async def _from(first: Piece, rest: AsyncGenerator[Piece]) -> AsyncGenerator[Piece]:
    async with aclosing(rest):
        yield first
        async for piece in rest:
            yield piece


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"
