"""Models as an administrator meets them: add, use, remove; broken ones are refused by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from qa.vm.machine import Output

Run = Callable[..., Output]

BUILTIN = "/usr/share/clawos/models/builtin.gguf"


@pytest.mark.parametrize(
    "make",
    [
        "head -c 100000 /dev/urandom >/tmp/bad.gguf",
        f"head -c 1000000 {BUILTIN} >/tmp/bad.gguf",
        ": >/tmp/bad.gguf",
        f"head -c 16 {BUILTIN} >/tmp/bad.gguf; head -c 64 /dev/zero | tr '\\0' '\\377' >>/tmp/bad.gguf",
    ],
    ids=["noise", "truncated", "empty", "hostile counts"],
)
def test_broken_model_is_refused_and_the_service_stays(root: Run, user: Run, make: str) -> None:
    before = root("systemctl show -P InvocationID clawos-inference").text
    root(make)
    done = root("claw model add /tmp/bad.gguf bad; s=$?; rm -f /tmp/bad.gguf; exit $s", 200)
    assert done.status == 1
    assert b"GGUF" in done.stderr + done.stdout
    assert b"Traceback" not in done.stderr
    assert root("systemctl show -P InvocationID clawos-inference").text == before
    assert "bad" not in root("claw model list").text
    assert user("-c", "how much memory is free?").status == 0


def test_model_is_added_used_and_removed(root: Run, user: Run) -> None:
    assert root(f"claw model add {BUILTIN} second", 300).status == 0
    try:
        used = root("claw model use second", 300)
        assert used.status == 0, used.stderr
        assert user("-c", "how much memory is free?").status == 0
        root("systemctl restart clawos-inference")
        assert (
            "second"
            in root(
                "busctl -j call org.clawos.Inference1 /org/clawos/Inference1 org.clawos.Inference1 Status"
            ).text
        )
    finally:
        root("claw model use builtin; claw model remove second", 300)
    assert "second" not in root("claw model list").text


def test_missing_model_is_named(root: Run) -> None:
    done = root("claw model use nowhere")
    assert done.status == 1
    assert b"nowhere" in done.stderr
