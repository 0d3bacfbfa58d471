"""Colours for a terminal; the text is the same without them."""

from __future__ import annotations

import os
import re
from typing import TextIO

STYLES = {
    "title": "1", "name": "36", "type": "2", "comment": "32", "place": "35",
    "added": "32", "removed": "31", "strong": "1", "faint": "2",
}

_PARTS = re.compile(
    r"(?P<title>^(?:# (?:after|as) .*|\s*(?:graph|body) [\w.]+|\s*return\b))"
    r"|(?P<comment>  # .*$)"
    r"|(?P<place>  @ .*?(?=  #|$))"
    r"|(?P<name>%\d+)"
    r"|(?P<type>\b(?:[fiu]\d+|bool)(?:\[[^\]]*\])?)",
    re.MULTILINE,
)


class Paint:
    """Puts colours round pieces of text, or leaves them as they are."""

    def __init__(self, on: bool) -> None:
        self.on = on

    def __call__(self, style: str, text: str) -> str:
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if self.on and text else text

    def graph(self, text: str) -> str:
        """The text of graphs with titles, names, types, places and comments told apart."""
        return _PARTS.sub(lambda m: self(str(m.lastgroup), m[0]), text) if self.on else text


def paint_for(stream: TextIO) -> Paint:
    """Colours if the stream is a terminal; NO_COLOR and FORCE_COLOR decide otherwise, in this order."""
    if os.environ.get("NO_COLOR"):
        return Paint(False)
    if os.environ.get("FORCE_COLOR"):
        return Paint(True)
    return Paint(stream.isatty() and os.environ.get("TERM") != "dumb")
