"""The sandbox of these tests: everything but the cgroup, which needs controllers that only the VM has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qa.compat.sandbox import Sandbox


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    directory = tmp_path_factory.mktemp("compat")
    for parent in (directory, *directory.parents[:2]):
        parent.chmod(0o755)
    return Sandbox(directory)
