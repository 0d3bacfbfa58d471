"""Which line of a kernel's text each line of its code comes from, for people who look at both.

Code can be emitted with marks: comments `; @7` behind the LLVM IR that line 7 of the kernel's text makes.  `located`
puts debug locations in their place, which LLVM hands on through its passes to the assembly.  Neither changes an
instruction.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tensorc.codegen import loopir as ir

GRID = 2
"""The line of a kernel's text that tells the grid; the statements follow it."""

MARK = "  ; @"

Listing = list[tuple[str, int]]
"""Lines of code with the line of the kernel's text that each comes from, 0 where none is known."""


@dataclass(frozen=True)
class Marks:
    """The marks of one kernel; without any, nothing is marked.

    Attributes:
        head: that of the line with the buffers.
        grid: that of the line with the grid.
        statements: those of statements by `id`: two that are equal may stand on different lines.
    """

    head: str = ""
    grid: str = ""
    statements: Mapping[int, str] = field(default_factory=dict)

    @staticmethod
    def of(k: ir.Kernel, above: int = 0) -> Marks:
        """Those of a kernel whose text stands below so many lines."""
        lines: dict[int, str] = {}
        for number, s in enumerate(ir.statements(k.body), above + GRID + 1):
            lines.setdefault(id(s), mark(number))
        return Marks(mark(above + 1), mark(above + GRID), lines)


NO_MARKS = Marks()


def mark(number: int) -> str:
    """The comment behind code that comes from a line."""
    return f"{MARK}{number}"


def marked(text: str, comment: str) -> str:
    """LLVM IR with a mark behind every instruction; none where the mark is empty."""
    return "\n".join(line + comment if line.startswith("  ") else line for line in text.split("\n"))


def unmarked(text: str) -> str:
    """LLVM IR without its marks."""
    return re.sub(rf"{MARK}\d+$", "", text, flags=re.MULTILINE)


def located(text: str) -> str:
    """Marked LLVM IR with debug locations: each function with marks is a subprogram of one file."""
    out: list[str] = []
    found: dict[tuple[int, int], int] = {}
    functions: list[tuple[str, int]] = []
    count = 4  # after the compile unit, the file, the type of all subprograms, and the version
    for block in re.split(r"(?m)^(?=define )", text):
        if MARK not in block:
            out.append(block)
            continue
        scope, count = count, count + 1
        head, _, body = block.partition("{\n")
        functions.append((_name(head), scope))
        out.append(f"{head}!dbg !{scope} {{\n")
        lines: list[str] = []
        for line in body.split("\n"):
            code, has_mark, number = line.partition(MARK)
            if has_mark and not code.endswith(":"):
                at = (scope, int(number))
                if at not in found:
                    found[at], count = count, count + 1
                code += f", !dbg !{found[at]}"
            lines.append(code)
        out.append("\n".join(lines))
    return "".join([*out, *_metadata(functions, found)])


def _metadata(functions: list[tuple[str, int]], locations: Mapping[tuple[int, int], int]) -> Iterator[str]:
    """What the numbers of debug locations stand for; only directives come of it, no tables."""
    yield "\n!llvm.dbg.cu = !{!0}\n!llvm.module.flags = !{!3}\n"
    yield "!0 = distinct !DICompileUnit(language: DW_LANG_C, file: !1, emissionKind: DebugDirectivesOnly)\n"
    yield '!1 = !DIFile(filename: "loops", directory: "")\n!2 = !DISubroutineType(types: !{})\n'
    yield '!3 = !{i32 2, !"Debug Info Version", i32 3}\n'
    for name, number in functions:
        yield (f'!{number} = distinct !DISubprogram(name: "{name}", file: !1, line: 1, type: !2, unit: !0, '
               "spFlags: DISPFlagDefinition)\n")
    for (scope, line), number in locations.items():
        yield f"!{number} = !DILocation(line: {line}, scope: !{scope})\n"


def _name(head: str) -> str:
    found = re.search(r'@"?([\w.$-]+)', head)
    assert found is not None, head
    return found[1]


def marked_functions(text: str) -> dict[str, Listing]:
    """The functions of marked LLVM IR."""
    return {_name(block.partition("{\n")[0]): [_split_mark(line) for line in block.rstrip().split("\n")]
            for block in _definitions(text)}


def _split_mark(line: str) -> tuple[str, int]:
    code, _, number = line.partition(MARK)
    return code, int(number or 0)


def located_functions(text: str) -> dict[str, Listing]:
    """The functions of LLVM IR with debug locations, as LLVM prints it; the locations are taken out."""
    lines = {number: int(line) for number, line in _LINE.findall(text)}

    def split(line: str) -> tuple[str, int]:
        location = _LOCATION.search(line)
        if location is None:
            return line, 0
        source = lines.get(location[1], 0) if line.startswith("  ") else 0
        return line[:location.start()] + line[location.end():], source

    return {_name(block.partition("{\n")[0]): [split(line) for line in block.rstrip().split("\n")]
            for block in _definitions(text)}


def _definitions(text: str) -> Iterator[str]:
    """The texts of functions, heads included."""
    for block in re.split(r"(?m)^(?=define )", text)[1:]:
        yield block[:block.index("\n}") + 2]


def assembly_functions(text: str) -> dict[str, Listing]:
    """The functions of assembly made from LLVM IR with debug locations, without the directives that carry those.

    The constants that a function reads, which stand before it, follow it here.
    """
    found: dict[str, Listing] = {}
    constants: Listing = []
    current: Listing | None = None
    source = 0
    for line in text.split("\n"):
        if location := _LOC.match(line):
            source = int(location[1])
        elif start := _FUNCTION.match(line):
            current, source = found.setdefault(start[1], []), 0
            current.append((line, 0))
        elif _END.match(line):
            if current is not None:
                current += constants
            current, constants = None, []
        elif current is not None and _SAYS_MUCH.match(line):
            current.append((line, source if line[0].isspace() else 0))
        elif current is None and (_CONSTANT.match(line) or constants and _DATA.match(line)):
            constants.append((line, 0))
    return found


_LINE = re.compile(r"^!(\d+) = (?:distinct )?!DILocation\(line: (\d+)", re.MULTILINE)
_LOCATION = re.compile(r",? !dbg !(\d+)")
_LOC = re.compile(r"\s+\.loc\s+\d+\s+(\d+)")
_FUNCTION = re.compile(r'"?_?([A-Za-z]\w*)"?:')
_END = re.compile(r"\.?Lfunc_end")
_CONSTANT = re.compile(r"\.?LCPI")
_DATA = re.compile(r"\s+\.(byte|short|long|quad|zero|ascii)")
_SAYS_MUCH = re.compile(r"\s+[^.\s]|\.?LBB")
