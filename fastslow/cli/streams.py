"""Standard streams whose reader may leave before the end, as `head` does, and is never acted on."""

import os
import re
from typing import Any, TextIO

from fastslow.core.text import visible

_LINES, _DRAWING = re.compile(r"(\n)"), re.compile(r"(\n|\r|\x1b\[[\d;?]*[A-Za-z])")
"""What may reach a file or a pipe, and a terminal, on which rich draws with colours and moves."""


class LastingStream:
    """A text stream that outlives its reader: what is written after that goes nowhere.

    So a run goes on, and a command ends with the exit code of its work. Whoever printed it, text
    passes as by `visible`, should it not have been made so where it came from.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """See `TextIO.write`."""
        try:
            self._stream.write(self._safe(text))
        except BrokenPipeError:
            self._let_go()
        return len(text)

    def _safe(self, text: str) -> str:
        allowed = _DRAWING if self._stream.isatty() else _LINES
        pieces = enumerate(allowed.split(text))
        return "".join(piece if number % 2 else visible(piece) for number, piece in pieces)

    def flush(self) -> None:
        """See `TextIO.flush`."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._let_go()

    def _let_go(self) -> None:
        """Have the file descriptor lead nowhere, for what is in buffers too."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
