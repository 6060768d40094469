"""`--all`: every call and every fault; without it, one fault at each kind of call."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="a fault at each system call of a sandbox's set-up")
