"""Pieces of a line that know where they stand in it, so that an error can point there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tensorc.errors import IRError, TensorcError


@dataclass(frozen=True)
class Piece:
    """Text without blanks around it, from column `at` of its line (counted from 0)."""

    text: str
    at: int

    @staticmethod
    def of(line: str) -> Piece:
        """A whole line."""
        return Piece(line.strip(), len(line) - len(line.lstrip()))

    def cut(self, start: int, stop: int | None = None) -> Piece:
        """The part between two places."""
        part = self.text[start:stop]
        return Piece(part.strip(), self.at + start + len(part) - len(part.lstrip()))

    def parts(self, separator: str) -> list[Piece]:
        """Cut at every separator that stands in no bracket and no string; nothing for an empty piece."""
        places = [i for i, depth in outside_strings(self.text) if depth == 0 and self.text[i] == separator]
        starts, stops = [0, *(i + 1 for i in places)], [*places, None]
        return [self.cut(a, b) for a, b in zip(starts, stops, strict=True)] if self.text else []

    def halves(self, separator: str) -> tuple[Piece, Piece | None]:
        """What stands before the first such separator, and what stands after it if there is one."""
        place = next((i for i, depth in outside_strings(self.text)
                      if depth == 0 and self.text.startswith(separator, i)), None)
        return (self, None) if place is None else (self.cut(0, place), self.cut(place + len(separator)))

    def end(self) -> Piece:
        """Nothing, at its end."""
        return Piece("", self.at + len(self.text))


class Misread(IRError):
    """What is wrong with a piece."""

    def __init__(self, message: str, piece: Piece) -> None:
        super().__init__(message)
        self.piece = piece

    def shown(self, number: int, line: str) -> str:
        """The message with the line and its number, a caret under the piece."""
        first, *more = str(self).split("\n")
        under = " " * self.piece.at + "^" + "~" * (len(self.piece.text) - 1)
        return "\n".join([f"line {number}, column {self.piece.at + 1}: {first}", f"    {line}", f"    {under}", *more])


@contextmanager
def reading(piece: Piece, what: str = "") -> Iterator[None]:
    """Within the block errors are about a piece; `what` explains those that are not meant for people."""
    try:
        yield
    except Misread:
        raise
    except TensorcError as error:
        raise Misread(str(error), piece) from None
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise Misread(f"{what} ({error})" if what else str(error), piece) from None


def outside_strings(text: str) -> Iterator[tuple[int, int]]:
    """(place, brackets open there) of every character that is in no string; an opening bracket counts itself."""
    depth, quoted, escaped = 0, False, False
    for i, c in enumerate(text):
        if quoted:
            quoted, escaped = escaped or c != "'", not escaped and c == "\\"
        elif c == "'":
            quoted = True
        else:
            depth += (c in "([{") - (c in ")]}")
            yield i, depth


def near(name: str, known: Iterable[str]) -> str:
    """`; did you mean …?` where something known is near, or else nothing."""
    found = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(found)}?" if found else ""
