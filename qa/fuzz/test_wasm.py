"""Every module that the fuzzer kept, once more: each ends as its name says, and by name."""

from __future__ import annotations

from pathlib import Path

from qa.fuzz.wasm import CORPUS, KEPT_BYTES_MAX, Ended, fuzz, once

KEPT = sorted(CORPUS.iterdir())


def test_every_module_of_the_corpus_ends_as_it_did(tmp_path: Path) -> None:
    for file in KEPT:
        ended = once(file.read_bytes(), tmp_path)
        assert ended.fault == "", file
        assert str(ended.exit_code) == file.name.split("-")[0], file


def test_the_corpus_reaches_every_end_and_stays_small() -> None:
    codes = {file.name.split("-")[0] for file in KEPT}
    assert codes >= {"0", "202", "203", "204", "206", "207", "208"}
    assert max(file.stat().st_size for file in KEPT) <= KEPT_BYTES_MAX
    assert len(KEPT) < 200


def test_a_fault_is_seen() -> None:
    """The positive control."""
    for code, said in (
        (None, "x"),
        (1, "Traceback"),
        (208, "thread panicked"),
        (200, "run-wasm: x"),
        (204, ""),
    ):
        assert Ended(code, said).fault
    assert not Ended(204, "run-wasm: out of fuel (limit 1)\n").fault


def test_a_short_run_breaks_nothing() -> None:
    assert fuzz(2, seed=1, keep=False) == 0
