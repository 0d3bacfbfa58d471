"""A scalar Python function to LLVM IR, by Numba.

The IR defines @custom.scalar on doubles, i64 and i1 and holds nothing of this process: no address, no Python object, no
name that another process would not give it.
"""

from __future__ import annotations

import contextlib
import pickle
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Any, NoReturn

import llvmlite.binding as llvm

from tensorc.codegen.cpu.compile import LLVM
from tensorc.codegen.cpu.target import Target
from tensorc.codegen.straight import PREFIX, PURE, SCALAR
from tensorc.errors import ArgumentError, DTypeError

KINDS = {"f": "float", "i": "integer", "b": "bool"}
"""What a scalar function tells apart among its arguments and results."""

_SHADOW = "define i32 @custom.status"
_NUMBA_OWN = {"numba_gamma": "tgamma", "numba_lgamma": "lgamma", "numba_erf": "erf", "numba_erfc": "erfc"}
"""Functions of Numba's that the C library has under another name."""


@dataclass(frozen=True)
class ScalarCode:
    """LLVM IR of a scalar function, and the kind of its result."""

    text: str
    result: str


def compile_scalar(function: FunctionType, name: str, kinds: str) -> ScalarCode:
    """The code of a function on arguments of these kinds.

    Raises: DTypeError where Numba cannot type it; ArgumentError where it can raise, or needs Python at run time.
    """
    where = located(function, name)
    found, text, entry = _by_numba(function, where, kinds)
    with LLVM:
        text = _rewritten(text, entry, kinds, found, where, function.__code__.co_filename)
    return ScalarCode(text, found)


def located(function: FunctionType, name: str) -> str:
    """`softsign: the function at layers.py:12`."""
    code = function.__code__
    return f"{name}: the function at {code.co_filename.replace(chr(92), '/').rpartition('/')[2]}:{code.co_firstlineno}"


# -- Numba

def _by_numba(function: FunctionType, where: str, kinds: str) -> tuple[str, str, str]:
    """The kind of the result, LLVM IR, and the name of the function in it."""
    from numba.core import errors, types
    from numba.core.registry import CPUDispatcher

    given = {"f": types.float64, "i": types.int64, "b": types.boolean}
    options = {"nopython": True, "error_model": "numpy", "boundscheck": True,
               "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    dispatcher = CPUDispatcher(function, targetoptions=options)
    signature = tuple(given[k] for k in kinds)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", errors.NumbaWarning)
            dispatcher.compile(signature)
    except errors.NumbaError as error:
        _complain(error, where, kinds)

    made: Any = dispatcher.overloads[signature]
    kind = {types.Float: "f", types.Integer: "i", types.Boolean: "b"}
    result = next((k for t, k in kind.items() if isinstance(made.signature.return_type, t)), None)
    if result is None:
        given_back = _type_text(str(made.signature.return_type))
        raise DTypeError(f"{where} gives {given_back} for {shown(kinds)}, not always a number\n"
                         f"return one number on every path; custom.op takes functions of whole tensors")
    return result, made.library.get_llvm_str(), made.fndesc.llvm_func_name


def _type_text(text: str) -> str:
    """Numba's name of a type as one reads it."""
    text = re.sub(r"^Literal\[(\w+)\].*", r"\1", text)
    return re.sub(r"^OptionalType\((.*)\)$", r"\1 or nothing", text)


def shown(kinds: str) -> str:
    """`(float, integer)`."""
    return f"({', '.join(KINDS[k] for k in kinds)})"


def _complain(error: Any, where: str, kinds: str) -> NoReturn:
    """What Numba found, in a line, its place, and what to do."""
    text = re.sub(r"\x1b\[[\d;]*m", "", str(getattr(error, "msg", error)))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("Failed in", "During:", "File ", "Overload"))]
    cause = lines[0] if lines else type(error).__name__
    call = next((line.removeprefix(">>> ") for line in lines if line.startswith(">>> ")), "")
    if call:
        cause = f"{call} is not there in Numba"
    advice = "use numbers, math.* and functions of NumPy on numbers; numba.njit(function) shows Numba's whole message"
    unknown = re.search(r"Unknown attribute '(\w+)' of type Module\(<module '(\w+)'", text)
    if unknown:
        cause = f"{unknown[2]}.{unknown[1]} is not there in Numba"
    called = re.search(r"Untyped \w+ name '(\w+)'.*class 'function'", str(error))
    if called:
        cause = f"it calls {called[1]}, a Python function"
        advice = f"compile that one too: {called[1]} = numba.njit({called[1]})"
    line = getattr(getattr(error, "loc", None), "line", None)
    place = f", at line {line}" if line else ""
    raise DTypeError(f"{where} does not compile for {shown(kinds)}{place}: {cause}\n{advice}") from None


# -- to IR of our own

def _rewritten(text: str, entry: str, kinds: str, result: str, where: str, file: str) -> str:
    """Numba's module as @custom.scalar and what it needs.  Raises ArgumentError for what cannot stand alone."""
    raised = list(dict.fromkeys(_exceptions(text, file)))
    stored = _stored(text, result)
    with _parsed(text) as module:
        for f in module.functions:
            if not f.is_declaration:
                f.linkage = "internal"
                if not any(b"noinline" in a for a in f.attributes):
                    f.add_function_attribute("alwaysinline")
        pointer, excinfo, *takes = (str(a.type) for a in module.get_function(entry).arguments)
        assert pointer == excinfo == "ptr"
        text = str(module)
    with _parsed(text + _wrappers(entry, takes, kinds, result, stored)) as module:
        _optimise(module)
        text = str(module)
    text = _without_numba(text)
    alone = _of_scalar(text)
    if not any(" at line " in r for r in raised):      # what raises is of Numba's, for want of what is told here
        _check_outside(alone, where)
    _check_status(text, raised, where)
    _check_outside(alone, where)
    return _normal(alone)


@contextlib.contextmanager
def _parsed(text: str) -> Iterator[Any]:
    """The module of a text; it is gone behind the block, before its context can be."""
    context = llvm.create_context()
    module = llvm.parse_assembly(text, context)
    try:
        module.verify()
        yield module
    finally:
        module.close()


def _stored(text: str, result: str) -> str:
    """The LLVM type in which Numba's function leaves its result."""
    stored = re.search(r"store (double|float|i\d+) \S+, ptr %retptr", text)
    return stored[1] if stored else {"f": "double", "i": "i64", "b": "i8"}[result]


def _wrappers(entry: str, takes: list[str], kinds: str, result: str, stored: str) -> str:
    """@custom.scalar, and @custom.status, which is 0 for arguments on which the function does not raise."""
    own = {"f": "double", "i": "i64", "b": "i1"}
    parameters = ", ".join(f"{own[k]} %x{i}" for i, k in enumerate(kinds))
    lines = ["entry:", f"  %r = alloca {stored}", "  %e = alloca ptr"]
    given = ["ptr %r", "ptr %e"]
    for i, (k, taken) in enumerate(zip(kinds, takes, strict=True)):
        if taken != own[k]:
            lines.append(f"  %t{i} = zext i1 %x{i} to {taken}")
        given.append(f"{taken} %{'x' if taken == own[k] else 't'}{i}")
    lines.append(f'  %s = call i32 @"{entry}"({", ".join(given)})')

    back = [f"  %v = load {stored}, ptr %r"]
    if stored != own[result]:
        how = {"f": "fpext", "i": "sext", "b": "trunc"}[result]
        back.append(f"  %w = {how} {stored} %v to {own[result]}")
    back.append(f"  ret {own[result]} %{'v' if stored == own[result] else 'w'}")
    body = "\n".join(lines)
    return "\n".join([
        f"\ndefine {own[result]} {SCALAR}({parameters}) {{\n{body}", *back, "}",
        f"{_SHADOW}({parameters}) {{\n{body}", "  ret i32 %s", "}\n",
    ])


def _optimise(module: Any) -> None:
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_sroa_pass()
    for _ in range(2):
        passes.add_instruction_combine_pass()
        passes.add_simplify_cfg_pass()
        passes.add_new_gvn_pass()
        passes.add_aggressive_dce_pass()
    passes.add_lower_switch_pass()
    passes.add_global_dead_code_eliminate_pass()
    passes.add_strip_dead_prototype_pass()
    _run(passes, module)


def _run(passes: Any, module: Any) -> None:
    machine = Target.host().machine()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))


def _without_numba(text: str) -> str:
    """The IR without Numba's environment, which nothing reads, and names of Numba's for functions of the C library."""
    for own, usual in _NUMBA_OWN.items():
        text = re.sub(rf"@{own}\b", f"@{usual}", text)
    return "\n".join(line for line in text.splitlines() if not re.match(r"@\S*NumbaEnv\S* = ", line))


def _check_status(text: str, raised: list[str], where: str) -> None:
    """Raises ArgumentError unless @custom.status is 0 for all arguments; `raised` is what Numba would raise."""
    start = text.index(_SHADOW)
    body = text[start:text.index("\n}", start)]
    if re.search(r"\n  ret i32 0$", body) and body.count("\n  ret ") == 1:
        return
    told = " or ".join(raised) or "an exception"
    raise ArgumentError(f"{where} can raise {told}, which machine code cannot\n"
                        f"return a number for all arguments, such as math.nan where there is no answer")


def _exceptions(text: str, file: str) -> Iterator[str]:
    """The exceptions that Numba has kept for raising: `ValueError('negative') at line 12`, if that is in `file`."""
    for data in re.findall(r'@\.const\.pickledata\.\w+ = [^\n]* c"(.*)"', text):
        raw = re.sub(rb"\\([0-9A-F]{2})", lambda m: bytes([int(m[1], 16)]), data.encode("latin-1"))
        with contextlib.suppress(Exception):
            kind, args, place = pickle.loads(raw)
            line = f" at line {place[2]}" if place and place[1] == file else ""
            yield f"{kind.__name__}({', '.join(map(repr, args or ()))}){line}"


def _check_outside(text: str, where: str) -> None:
    """Raises ArgumentError where the function calls or reads what is there only while Numba is."""
    for name in re.findall(r"^declare [^\n]*@([\w.]+)\(", text, re.MULTILINE):
        if not name.startswith("llvm.") and name not in PURE:
            what = "memory for arrays or other objects" if name.startswith(("NRT_", "numba_", "Py")) else name
            raise ArgumentError(f"{where} needs {what} at run time\n"
                                "a scalar function works on numbers; custom.op takes functions of whole tensors")
    if "inttoptr" in text or re.search(r"^@\S+ = (?!.*\bconstant\b)", text, re.MULTILINE):
        raise ArgumentError(f"{where} reads memory of this process, such as a large array\n"
                            "give the array to K.gather, or its numbers as arguments")


def _of_scalar(text: str) -> str:
    """The module without @custom.status and what only that needs."""
    start = text.index(_SHADOW)
    with _parsed(text[:start] + text[text.index("\n}", start) + 2:]) as module:
        for f in module.functions:
            if not f.is_declaration and f.name != SCALAR[1:]:
                f.linkage = "internal"
        passes = llvm.create_new_module_pass_manager()
        passes.add_global_dead_code_eliminate_pass()
        passes.add_strip_dead_prototype_pass()
        _run(passes, module)
        return str(module)


def _normal(text: str) -> str:
    """The IR of @custom.scalar with all it has under names of ours, and nothing about the machine."""
    text = re.sub(r"(^(;|source_filename|target|attributes|!).*\n)|( #\d+(?= |$|\n))|(, ![^\n,]*)|(\s*;.*$)", "", text,
                  flags=re.MULTILINE)
    text = re.sub(r"^declare [^\n]*?(double|float|i\d+) (@[\w.]+)\(([^\n]*)\)[^\n]*",
                  lambda m: f"declare {m[1]} {m[2]}({', '.join(p.split()[0] for p in m[3].split(', '))})", text,
                  flags=re.MULTILINE)
    own = re.findall(r'^(@(?:"[^"]+"|[-\w.$]+)) = |^define [^@]*(@(?:"[^"]+"|[-\w.$]+))\(', text, re.MULTILINE)
    names = [a or b for a, b in own if (a or b) != SCALAR]
    for k, old in enumerate(sorted(names, key=text.index)):
        text = re.sub(re.escape(old) + r"(?![-\w.$])", f"{PREFIX}part{k}", text)
    text = re.sub(rf"^define [^@]*?(\S+) {SCALAR}\(", rf"define internal \1 {SCALAR}(", text, flags=re.MULTILINE)
    text = re.sub(r"^define internal .*?\n}", lambda m: _renamed(m[0]), text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join(line for line in text.splitlines() if line.strip()) + "\n"


def _renamed(function: str) -> str:
    """A function with its values and blocks numbered: Numba's names count what was compiled in this process."""
    numbers: dict[str, str] = {}

    def number(old: str) -> str:
        return old if re.fullmatch(r"x\d+|entry", old) else numbers.setdefault(old, f"v{len(numbers)}")

    name = r'("[^"]+"|[-\w.$]+)'
    function = re.sub(f"%{name}", lambda m: f"%{number(m[1])}", function)
    return re.sub(f"^{name}:", lambda m: f"{number(m[1])}:", function, flags=re.MULTILINE)
