"""Runs the inference room."""

from __future__ import annotations

import sys

from clawos.core import config
from clawos.core.bus import Bus
from clawos.core.main import serve
from clawos.inference.config import ROOM, Config
from clawos.inference.engine import Engine
from clawos.inference.interface import Inference
from clawos.inference.registry import Registry
from clawos.inference.service import Service


async def build(bus: Bus) -> tuple[Service, Inference]:
    settings = config.load(ROOM, Config)
    service = Service(settings, Registry(settings), Engine(settings), bus)
    service.preload()
    return service, Inference(service)


if __name__ == "__main__":
    sys.exit(serve(ROOM, build))
