"""The bus face of the inference room: org.clawos.Inference1."""

from __future__ import annotations

from clawos.core.bus import Fd, Interface, Str, caller, method
from clawos.inference.service import Service


class Inference(Interface):
    """Local models: chat with streaming and constrained tool calls, and the models of this machine."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service

    @method
    async def chat(self, request: Str) -> tuple[Str, Fd]:
        """Ask a model. Returns an id for Cancel and a stream of JSON lines that ends with `done`."""
        return await self._service.chat(request, caller().uid, caller().unique_name)

    @method
    async def cancel(self, chat: Str) -> None:
        """End a chat. So does closing its stream, and leaving the bus."""
        self._service.cancel(chat, caller().uid)

    @method
    async def models(self) -> Str:
        """List the models of this machine as JSON."""
        return await self._service.models()

    @method
    async def use_model(self, name: Str) -> None:
        """Make a model the default, over restarts; it is loaded first."""
        await self._service.use_model(name)

    @method
    async def add_model(self, name: Str, file: Fd) -> None:
        """Copy a GGUF into the registry; it is tried out first."""
        await self._service.add_model(name, file)

    @method
    async def remove_model(self, name: Str) -> None:
        """Delete an added model."""
        await self._service.remove_model(name)

    @method
    async def status(self) -> Str:
        """Describe the model in use and what it takes, as JSON."""
        return await self._service.status()
