"""What a request needs of the server, and how it is refused."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from igla.errors import UserError, first_fault
from igla.serve.embedding import Embedded, embed
from igla.serve.engine import Closing, Engine, Full, TooLong
from igla.serve.explain import Explanation, Method, explain
from igla.serve.generation import GenerationEngine
from igla.serve.keys import Denied, Doorkeeper, Scope
from igla.serve.labels import attributes_of
from igla.serve.metrics import Metrics
from igla.serve.models import Models, Served, WrongKind
from igla.serve.scoring import Scored, score
from igla.serve.settings import Limits, Settings
from igla.serve.suggestions import NotKept, Suggestion, SuggestionSink
from igla.serve.tokens import Side, TextTooLong
from igla.serve.writing import Order, Piece, write

# What nginx writes down for a client that has left; nobody reads it.
CLIENT_LEFT = 499


T = TypeVar("T")
_DRAINING = "The server is shutting down."


class Refused(Exception):
    """An answer other than 2xx, in one sentence."""

    def __init__(self, status: int, message: str, retry_after: float | None = None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after


class _ClientLeft(Exception):
    pass


@dataclass
class Service:
    """The parts of a running server.

    loading      held while a model is loaded
    suggestions  who keeps suggested scores; None: nobody
    steered      names of models that something else loads → why nobody may besides
    """

    settings: Settings
    models: Models
    engine: Engine
    generation: GenerationEngine
    metrics: Metrics
    keys: Doorkeeper | None = None
    suggestions: SuggestionSink | None = None
    draining: bool = False
    loading: asyncio.Lock = field(default_factory=asyncio.Lock)
    steered: dict[str, str] = field(default_factory=dict)

    def check_ready(self) -> None:
        """Refused when no requests are taken any more."""
        if self.draining:
            raise Refused(503, _DRAINING)

    def check_key(self, request: Request, scope: Scope) -> str | None:
        """The name of the request's key; None where no keys are asked for.

        Refused when they are and the request has none that is for this. What has been checked of a
        request once is not counted again.
        """
        if self.keys is None:
            return None
        passed: dict[Scope, str] = request.scope.setdefault("igla.passed", {})
        if scope in passed:
            return passed[scope]
        try:
            key = self.keys.check(_key_of(request), scope)
        except Denied as denied:
            raise Refused(denied.status, denied.message, denied.wait) from None
        note(request, key=key.name)
        passed[scope] = key.name
        return key.name

    def check_admin(self, request: Request) -> str:
        """The name of the request's key; Refused without one for admin, also where nothing else
        needs a key."""
        name = self.check_key(request, "admin")
        if name is None:
            raise Refused(
                403, "This needs a key for admin, and the server was started without keys."
            )
        return name

    async def score(
        self,
        request: Request,
        served: Served,
        texts: Sequence[str],
        *,
        grave: int | None = None,
        truncate: bool = False,
        keep: bool = True,
    ) -> Scored:
        """Scores of a request's texts; Refused in every case in which there are none.

        grave     the class that a text is searched for; None: the one that TOXICITY stands for
        truncate  of a long text the first window alone counts
        keep      whether the texts may be written down, if the settings say so
        """
        self.check_inputs(request, served, texts)
        if grave is None:
            grave = next(iter(attributes_of(self.settings, served.classes).values()))
        found = await self._worked(request, self.scored(served, texts, grave, truncate=truncate))
        if keep and self.settings.log.texts:
            note(request, texts=list(texts))
        if self.models.find(served.name, served.version):  # or its series would come back
            self.metrics.scored(found)
        return found

    def scored(
        self, served: Served, texts: Sequence[str], grave: int, *, truncate: bool = False
    ) -> Coroutine[Any, Any, Scored]:
        """Scores of texts as the settings have them read, whoever has sent them; see scoring.score
        and Engine.outputs for what it raises."""
        guarded = self.settings.guard
        return score(self.engine, served, texts, grave, truncate=truncate, guarded=guarded)

    async def embed(
        self,
        request: Request,
        served: Served,
        texts: Sequence[str],
        *,
        normalize: bool,
        cut: Side | None = None,
    ) -> Embedded:
        """Embeddings of a request's texts; refused as score is, and where a text is longer than the
        model reads.

        cut  the side on which such a text may be cut in place of that
        """
        self.check_inputs(request, served, texts)
        found = await self._worked(
            request, embed(self.engine, served.embedder, texts, normalize=normalize, cut=cut)
        )
        if self.settings.log.texts:
            note(request, texts=list(texts))
        return found

    async def explain(
        self, request: Request, served: Served, text: str, method: Method
    ) -> Explanation:
        """Which words drive a text's scores; refused as score is."""
        note(request, model=served.name, version=served.version)
        return await self._worked(request, explain(self.engine, served, text, method))

    async def suggest(self, suggestion: Suggestion) -> None:
        """Have a suggestion kept; Refused when it is not."""
        limits = self.settings.limits
        if self.suggestions is None:
            raise Refused(404, "This server keeps no suggestions; igla gate serve does.")
        try:
            async with asyncio.timeout(limits.seconds):
                await self.suggestions.record(suggestion)
        except NotKept as failed:
            raise Refused(503, str(failed), retry_after=1.0) from None
        except TimeoutError:
            raise Refused(503, f"Not kept within {limits.seconds:g} s.", retry_after=1.0) from None

    def model(self, name: str | None, version: str | None = None) -> Served:
        """The model of a name and a version; Refused where there is none."""
        served = self.models.find(name, version)
        if served is None:
            model = "the default model" if name is None else f"model {name}"
            what = model if version is None else f"version {version} of {model}"
            raise Refused(404, f"There is no {what} here.")
        return served

    def check_inputs(self, request: Request, served: Served, texts: Sequence[str]) -> None:
        most = self.settings.limits.inputs
        note(request, model=served.name, version=served.version, inputs=len(texts))
        if not texts:
            raise Refused(400, "There is no text.")
        if len(texts) > most:
            raise Refused(413, f"{len(texts)} texts in a request; {most} are allowed.")
        for text in texts:
            try:
                text.encode()
            except UnicodeEncodeError as error:  # JSON's \ud800 alone
                raise Refused(
                    400, f"A text holds half a letter at {error.start}: a lone surrogate."
                ) from None

    def room(self, served: Served, prompt: int, texts: int) -> int:
        """Tokens, one at least, that each of so many texts after a prompt of so many may have, by
        the model's positions and by what is held here at once."""
        limits = self.settings.limits
        each = min(served.generator.max_positions, limits.cache_tokens) - prompt
        return max(1, min(each, (limits.waiting_tokens - prompt) // texts))

    def pieces(self, served: Served, order: Order) -> AsyncGenerator[Piece]:
        """What is written for an order, as it comes; Refused as the work of `written` is."""
        return _in_time(write(self.generation, served.generator, order), self.settings.limits)

    async def written(self, request: Request, work: Coroutine[Any, Any, T]) -> T:
        """What comes of work on pieces, for a request that may ask for it and for somebody."""
        return await self._worked(request, work, self.settings.limits.writing_seconds)

    def classifier(self, name: str | None, version: str | None = None) -> Served:
        """As model, but the first that scores where none is named."""
        return self.model(self.models.scoring().name if name is None else name, version)

    async def _worked(
        self, request: Request, work: Coroutine[Any, Any, T], seconds: float | None = None
    ) -> T:
        """What comes of work for a request that may ask for it, in time and for somebody."""
        try:
            self.check_ready()
            self.check_key(request, "score")
        except Refused:
            work.close()
            raise
        with _refusals(seconds or self.settings.limits.seconds) as seconds:
            async with asyncio.timeout(seconds):
                return await _unless_left(request, work)


@contextlib.contextmanager
def _refusals(seconds: float) -> Iterator[float]:
    """What the engines cannot do, as it is answered; `seconds` is what they are given."""
    try:
        yield seconds
    except Full as full:
        raise Refused(429, str(full), retry_after=full.wait) from None
    except (TooLong, TextTooLong) as long:
        raise Refused(413, str(long)) from None
    except Closing:
        raise Refused(503, _DRAINING) from None
    except TimeoutError:
        raise Refused(503, f"No answer within {seconds:g} s.", retry_after=1.0) from None


async def _in_time(pieces: AsyncGenerator[Piece], limits: Limits) -> AsyncGenerator[Piece]:
    end = asyncio.get_running_loop().time() + limits.writing_seconds
    async with contextlib.aclosing(pieces):
        while True:
            with _refusals(limits.writing_seconds):
                try:
                    async with asyncio.timeout_at(end):
                        piece = await anext(pieces)
                except StopAsyncIteration:
                    return
                except UserError as error:  # what the decoder cannot do, as so long a text
                    raise Refused(400, str(error)) from None
            yield piece


def _key_of(request: Request) -> str | None:
    """Where OpenAI's and Hugging Face's clients put it, others, and Google's."""
    kind, _, key = request.headers.get("authorization", "").partition(" ")
    if kind.casefold() == "bearer" and key:
        return key.strip()
    return request.headers.get("x-api-key") or request.query_params.get("key")


def note(request: Request, **facts: Any) -> None:
    """Facts for the line that is logged of a request."""
    request.scope.setdefault("igla.facts", {}).update(facts)


def key_noted(request: Request) -> str:
    """The name of the key that a request was found to have; "" where none was asked for."""
    name: str = request.scope.get("igla.facts", {}).get("key", "")
    return name


def service_of(request: Request) -> Service:
    """The service that a request is for."""
    service: Service = request.app.state.service
    return service


def version_header(served: Served) -> dict[str, str]:
    """Names the version that has answered, in whatever protocol."""
    return {"x-igla-version": f"{served.name}/{served.version}"}


def route_class(refusal: Callable[[int, str], Response]) -> type[APIRoute]:
    """Routes of a protocol, which say what is wrong in that protocol's shape.

    refusal  the response of a status and a sentence
    """

    class Route(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handle_or_refuse(request: Request) -> Response:
                try:
                    return await handle(request)
                except _ClientLeft:
                    return Response(status_code=CLIENT_LEFT)
                except Refused as refused:
                    return refused_by(refusal, refused)
                except RequestValidationError as error:
                    return refusal(400, _written(described(error)))
                except UnicodeEncodeError:  # of what is given back as it came, as a client's mark
                    return refusal(400, "The request holds half a letter: a lone surrogate.")
                except RecursionError:  # at an edge where it could be read, and not written again
                    return refusal(400, "The request is nested too deeply.")
                except WrongKind as error:
                    return refusal(400, str(error))
                except HTTPException as error:
                    return refusal(error.status_code, str(error.detail))
                except Exception:
                    logging.getLogger("uvicorn.error").exception("A request has failed.")
                    return refusal(500, "The server has failed at this request; its log says how.")

            return handle_or_refuse

    return Route


def refused_by(refusal: Callable[[int, str], Response], refused: Refused) -> Response:
    """A refusal in a protocol's shape."""
    response = refusal(refused.status, _written(refused.message))
    if refused.retry_after is not None:
        response.headers["retry-after"] = str(ceil(refused.retry_after))
    return response


def _written(message: str) -> str:
    """A message as it can be sent: what a client has sent may hold half a letter."""
    return message.encode("utf-8", "replace").decode()


def described(error: RequestValidationError | ValidationError) -> str:
    """The first fault of a request, in one sentence."""
    return f"{first_fault(error, 'body')}."


async def _unless_left(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The work's result; it is cancelled when the client goes before it is done."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise _ClientLeft
        return await working
    finally:
        for task in (working, leaving):
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
