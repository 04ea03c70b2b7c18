"""What can be added to a server from outside."""

from typing import Protocol

from fastapi import APIRouter, Response

from igla.serve.service import Service


class Extension(Protocol):
    """Routes with a life of their own, and their shape of an error."""

    router: APIRouter

    def refusal(self, status: int, message: str) -> Response:
        """The response of a status and a sentence."""

    async def start(self, service: Service) -> None:
        """Begin, in the event loop, before the first request is taken."""

    async def close(self) -> None:
        """End, after the last one was answered."""
