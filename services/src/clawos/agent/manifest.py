"""A tool manifest: what `policies/tools/<name>.toml` says, parsed. If it exists, it is valid.

`policies/schema/tool.schema.json` is the JSON Schema of these records; a test keeps the two the same.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from clawos.agent.template import Argv, named, placeholders, required_placeholders
from clawos.core.parse import Record


class Safety(StrEnum):
    """How much a call may do without asking."""

    SAFE = "safe"
    CAUTIOUS = "cautious"
    DANGEROUS = "dangerous"


class Home(StrEnum):
    """What a tool may do in the home of the user it works for."""

    NONE = "none"
    READ = "read"
    WRITE = "write"


class Runtime(StrEnum):
    """What runs argv[0]."""

    NATIVE = "native"
    PYTHON = "python"
    WASM = "wasm"


ToolName = Annotated[
    str,
    Meta(
        pattern=r"^[a-z][a-z0-9_-]{0,31}(\.[a-z][a-z0-9_-]{0,31}){1,3}$", description="also the file's name"
    ),
]
ArgumentName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
SystemName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
AbsolutePath = Annotated[str, Meta(pattern=r"^/[^\x00]*$", max_length=512)]
Word = Annotated[str, Meta(min_length=1, max_length=64)]
Sentence = Annotated[str, Meta(pattern=r"^([^{}\x00-\x1f]|\{[a-z][a-z0-9_]{0,31}\})*$", max_length=120)]
Length = Annotated[int, Meta(ge=0, le=131_071)]
Scalar = str | int | float | bool


class Argument(Record, frozen=True, rename="camel", omit_defaults=True):
    """JSON Schema of one argument: the part of JSON Schema that a command line can express."""

    kind: Literal["string", "integer", "number", "boolean"] = msgspec.field(name="type")
    description: Annotated[str, Meta(max_length=200)] = ""
    enum: tuple[Scalar, ...] | None = None
    min_length: Length | None = None
    max_length: Length | None = None
    pattern: Annotated[str, Meta(max_length=256)] | None = None
    minimum: int | float | None = None
    maximum: int | float | None = None

    def __post_init__(self) -> None:
        of_text = (self.min_length, self.max_length, self.pattern)
        of_number = (self.minimum, self.maximum)
        if self.kind != "string" and any(v is not None for v in of_text):
            raise ValueError(f"minLength, maxLength and pattern do not apply to {self.kind}")
        if self.kind not in ("integer", "number") and any(v is not None for v in of_number):
            raise ValueError(f"minimum and maximum do not apply to {self.kind}")
        if self.enum is not None and (not self.enum or len(set(self.enum)) != len(self.enum)):
            raise ValueError("enum must name at least one value, each once")
        if self.kind == "string" and self.enum is None and self.max_length is None:
            raise ValueError("a string needs an enum or a maxLength")
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise ValueError(f"pattern: {error}") from None


class Arguments(Record, frozen=True, rename="camel", omit_defaults=True):
    """JSON Schema of all arguments of a tool."""

    kind: Literal["object"] = msgspec.field(name="type")
    additional_properties: bool
    required: tuple[ArgumentName, ...] = ()
    properties: dict[ArgumentName, Argument] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.additional_properties:
            raise ValueError("additionalProperties must be false")
        if unknown := set(self.required) - set(self.properties):
            raise ValueError(f"required names what is not a property: {', '.join(sorted(unknown))}")


class Network(StrEnum):
    """Where a tool may connect to."""

    NONE = "none"
    EGRESS = "egress"


class Permissions(Record, frozen=True):
    """What the sandbox of a call holds beside the system's own programs; nothing unless it is named."""

    home: Home = Home.NONE
    read: Annotated[tuple[AbsolutePath, ...], Meta(max_length=32)] = ()
    sockets: Annotated[tuple[AbsolutePath, ...], Meta(max_length=8)] = ()
    groups: Annotated[tuple[SystemName, ...], Meta(max_length=8)] = ()
    host_proc: bool = False
    network: Annotated[Network, Meta(description="egress: to the egress service, and nowhere else")] = (
        Network.NONE
    )
    run_as: SystemName = "clawos-sandbox"

    def __post_init__(self) -> None:
        for path in (*self.read, *self.sockets):
            if (
                str(PurePosixPath(path)) != path
                or ".." in PurePosixPath(path).parts
                or not path.isprintable()
            ):
                raise ValueError(f"{path!r} is not a plain absolute path")


class Manifest(Record, frozen=True):
    """One tool."""

    name: ToolName
    description: Annotated[str, Meta(min_length=1, max_length=400)]
    safety: Safety = msgspec.field(name="class")
    argv: Annotated[Argv, Meta(min_length=1, max_length=64)]
    quota: SystemName
    seccomp: SystemName
    arguments: Arguments
    verbs: Annotated[tuple[Word, ...], Meta(max_length=64)] = ()
    asks: Annotated[
        Sentence, Meta(description="what a person is asked, without the question mark: restart {unit}")
    ] = ""
    permissions: Permissions = Permissions()
    runtime: Annotated[
        Runtime,
        Meta(
            description="native: argv[0] is a program; python: a file of Python; "
            "wasm: a WebAssembly module, a WASI command"
        ),
    ] = Runtime.NATIVE

    def __post_init__(self) -> None:
        for word in (
            self.name,
            self.quota,
            self.seccomp,
            *self.arguments.properties,
            *self.permissions.groups,
        ):
            # The patterns above are also JSON Schema's, where "$" is the end; Python's lets a newline pass.
            if word.endswith("\n"):
                raise ValueError(f"{word!r} ends in a newline")
        if not self.asks.isprintable():
            raise ValueError("asks must be one line of characters that are seen")
        if absent := named(self.asks) - set(self.arguments.required):
            raise ValueError(f"asks names what is not a required argument: {', '.join(sorted(absent))}")
        program = self.argv[0]
        if not isinstance(program, str) or not program.startswith("/") or placeholders((program,)):
            raise ValueError("argv must begin with the absolute path of a program")
        if self.runtime is Runtime.WASM and self.permissions != Permissions(
            home=self.permissions.home, read=self.permissions.read
        ):
            raise ValueError("a WebAssembly tool has only the permissions home and read")
        used = placeholders(self.argv)
        declared = set(self.arguments.properties)
        if unknown := used - declared:
            raise ValueError(f"argv uses arguments that are not declared: {', '.join(sorted(unknown))}")
        if unused := declared - used:
            raise ValueError(f"argv does not use the arguments {', '.join(sorted(unused))}")
        if bare := required_placeholders(self.argv) - set(self.arguments.required):
            raise ValueError(
                f"{', '.join(sorted(bare))} may be absent: put it into an inner list or require it"
            )


def parameters(manifest: Manifest) -> dict[str, Any]:
    """The arguments' JSON Schema as plain values, for the model and for validation."""
    schema: dict[str, Any] = msgspec.to_builtins(manifest.arguments)
    return schema


def published_schema() -> dict[str, Any]:
    """What stands in `policies/schema/tool.schema.json`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ClawOS tool manifest",
        **msgspec.json.schema(Manifest),
    }
