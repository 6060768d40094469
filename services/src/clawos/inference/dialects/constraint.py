"""llguidance on top of llama.cpp's logits: holds a tool call to its grammar, token by token."""

from __future__ import annotations

import ctypes
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import llguidance
import numpy as np
from numpy.typing import NDArray

from clawos.inference.chat import Tool
from clawos.inference.dialects import schema
from clawos.inference.dialects.markers import Marker
from clawos.inference.errors import GrammarInvalid, ModelInvalid
from clawos.inference.library import library
from clawos.inference.model import Model
from clawos.inference.sampling import Sampler
from clawos.inference.session import Session

_KEPT = 8


def logits_of(session: Session) -> NDArray[np.float32]:
    """The logits after the last token, in place. Raises ModelInvalid where the model computed no numbers."""
    address = ctypes.cast(session.logits(), ctypes.c_void_p).value
    assert address is not None
    size = session.model.vocabulary
    logits = np.frombuffer((ctypes.c_float * size).from_address(address), np.float32)
    # The samplers of llama.cpp end the process on NaN; the first NaN counts as the largest here.
    if not logits[logits.argmax()] < np.inf:
        raise ModelInvalid(f"{session.model.name} computes no numbers", "use another model")
    return logits


def choose(session: Session, sampler: Sampler) -> int:
    """The next token. Raises ModelInvalid where the model computed no numbers."""
    logits = logits_of(session)
    # llama.cpp's greedy sampler copies each logit of the vocabulary first, three times as wide.
    return int(logits.argmax()) if sampler.greedy else sampler.pick(session)


def _tokenizer(model: Model) -> Any:
    """The vocabulary as llguidance wants it: seconds for a large one, hence once for each model."""
    pieces = []
    for token in range(model.vocabulary):
        piece = model.piece(token)
        # 0xff marks what is not text; a control token must not match the letters of its name.
        pieces.append(b"\xff" + piece if model.is_control(token) else piece)
    tokenize = ctypes.cast(library().api._lib.llama_tokenize, ctypes.c_void_p).value
    make: Any = llguidance.LLTokenizer  # its stubs leave out from_llamacpp
    return make.from_llamacpp(
        tokens=pieces, vocab_ptr=model.vocab, tokenize_fptr=tokenize, eos_token=model.end_tokens, slices=None
    )


class Constraints:
    """Grammars of one model: compiled once for a set of tools, copied for each call."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._made: Any = None
        self._known: OrderedDict[str, Any] = OrderedDict()

    def prepare(self) -> Any:
        """Read the vocabulary, once. Raises ModelInvalid."""
        try:
            self._made = self._made or _tokenizer(self._model)
        # A panic in llguidance is no Exception; what led to it is data by whoever made the model.
        except BaseException as error:
            raise ModelInvalid(
                f"the vocabulary of {self._model.name} cannot be constrained: {error}", "use another model"
            ) from None
        return self._made

    def begin(self, tools: Sequence[Tool], marker: Marker) -> Constraint:
        """A constraint for what follows the marker. Raises GrammarInvalid."""
        ids = {
            text: token
            for text in (marker.opens, marker.closes)
            if text and (token := self._model.one_token(text)) is not None
        }
        text = schema.grammar(tools, marker, ids)
        matcher = self._known.pop(text, None)
        if matcher is None:
            matcher = llguidance.LLMatcher(
                self.prepare(), llguidance.LLMatcher.grammar_from_lark(text), log_level=0
            )
            if matcher.is_error():
                words = matcher.get_error().splitlines()[0]
                raise GrammarInvalid(f"tools: {words}", "correct the tools' schemas")
        self._known[text] = matcher
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return Constraint(self._model, matcher.deep_copy())


class Constraint:
    """The state of one call."""

    def __init__(self, model: Model, matcher: Any) -> None:
        self._matcher = matcher
        self._mask = np.zeros((model.vocabulary + 31) // 32, np.uint32)
        self._size = model.vocabulary
        self.seconds = 0.0

    def mask(self, session: Session) -> None:
        """Strike from the logits every token that would break the call. Raises GrammarInvalid."""
        begun = time.perf_counter()
        logits = logits_of(session)
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        allowed = np.unpackbits(self._mask.view(np.uint8), count=self._size, bitorder="little")
        np.putmask(logits, allowed == 0, -np.inf)
        if self._matcher.is_error() or not logits.max() > -np.inf:
            raise GrammarInvalid("the grammar leaves no token to go on with", "use another model")
        self.seconds += time.perf_counter() - begun

    def take(self, token: int) -> None:
        """Go on with a token that the mask let through. Raises GrammarInvalid."""
        begun = time.perf_counter()
        if not self._matcher.consume_token(token):
            raise GrammarInvalid("the constraint lost its place", "use another model")
        self.seconds += time.perf_counter() - begun

    @property
    def complete(self) -> bool:
        """Nothing can follow."""
        return bool(self._matcher.is_stopped())
