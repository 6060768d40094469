"""What a caller of the inference room can act on, beside what `core.errors` has."""

from __future__ import annotations

from clawos.core.errors import ClawError


class ModelMissing(ClawError):
    """There is no model of this name."""

    name = "ModelMissing"


class ModelInvalid(ClawError):
    """The file is not a GGUF that this machine can run: truncated, hostile, or of an unknown kind."""

    name = "ModelInvalid"


class GrammarInvalid(ClawError):
    """The tools' schemas cannot be turned into a constraint, or the model could not be held to it."""

    name = "GrammarInvalid"


class ContextFull(ClawError):
    """The conversation and the tools do not fit the model's context."""

    name = "ContextFull"
