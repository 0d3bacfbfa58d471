"""For authors of passes: passes read from a file, and a new file to start from."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib.util
import keyword
import re
import sys
import traceback
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from tensorc.errors import ArgumentError

RULE = '''"""{name}: a rewrite for tensorc.

    tensorc --dump-ir SCRIPT.py --passes {module}.py --after all     what it makes of the functions of a script
    K.function(…, passes={name}())                                   in a program
"""

from tensorc.ops import exp
from tensorc.passes import No, Rewrite


class {name}(Rewrite):
    """exp(x) · exp(y) → exp(x + y)"""

    version = "1"       # change it with what the rule does: compiled programs are kept by it

    def pattern(self, x, y):
        return exp(x) * exp(y)

    def check(self, x, y):
        return x.type == y.type or No(f"x is {{x.type}}, y is {{y.type}}: the sum would be larger than either")

    def build(self, x, y):
        return exp(x + y)
'''

TEST = '''from tensorc.testing import check_numbers, check_silent, check_text

from {module} import {name}


def test_what_it_does():
    check_text({name}(), """
        graph before(x: f32[n], y: f32[n])
          %0 = exp(x)
          %1 = exp(y)
          %2 = mul(%0, %1)
          return %2
    """, """
        graph after(x: f32[n], y: f32[n])
          %0 = add(x, y)
          %1 = exp(%0)
          return %1
    """)


def test_where_it_does_nothing():
    check_silent({name}(), """
        graph broadcast(x: f32[n], y: f32[])
          %0 = exp(x)
          %1 = exp(y)
          %2 = mul(%0, %1)
          return %2
    """, because="larger than either")


def test_values_stay_in_random_graphs():
    check_numbers({name}())
'''


def new_pass(name: str, folder: Path) -> tuple[Path, Path]:
    """Writes a rewrite that works, and its test, which passes, into a folder; returns both files.

    Args:
        name: of the class, such as FastSwish, or of the file, such as fast_swish.

    Raises: ArgumentError for a name that cannot be used, or files that are there already; nothing is written then.
    """
    module, rule = _checked(name)
    files = folder / f"{module}.py", folder / f"test_{module}.py"
    for file in files:
        if file.exists():
            raise ArgumentError(f"--new-pass {name}: {file.name} is there already, and stays as it is")
    for file, text in zip(files, (RULE, TEST), strict=True):
        with open(file, "x", encoding="utf-8") as out:
            out.write(text.format(module=module, name=rule))
    return files


def passes_in(file: Path) -> list[Any]:
    """The passes of a Python file: what it lists as PASSES, or all rewrites and graph passes that it defines.

    What it prints goes to the standard error stream, and so does the traceback of an error in it.

    Raises: ArgumentError for a file that is not there, fails, or defines no pass.
    """
    if not file.is_file():
        beside = file.parent.iterdir() if file.parent.is_dir() else ()
        near = difflib.get_close_matches(file.name, [p.name for p in beside], n=3)
        hint = f"; did you mean {' or '.join(str(file.with_name(n)) for n in near)}?" if near else ""
        raise ArgumentError(f"--passes {file}: there is no such file{hint}")
    from tensorc.passes.rewrite import Rewrite

    module = _loaded(file)
    own = [v for v in vars(module).values() if getattr(v, "__module__", None) == module.__name__]
    rules = [v for v in own if isinstance(v, type) and issubclass(v, Rewrite) and hasattr(v, "pattern")]
    passes = [v for v in own if not isinstance(v, type | Rewrite) and callable(v) and hasattr(v, "place")]
    listed = getattr(module, "PASSES", None)
    found = list(listed) if listed is not None else [v for v in own if v in rules or v in passes]
    if not found:
        raise ArgumentError(f"--passes {file}: it defines no Rewrite and no @graph_pass, and lists none as PASSES")
    return [v() if isinstance(v, type) else v if isinstance(v, Rewrite) else _quiet(v) for v in found]


def _quiet(run: Any) -> Any:
    """A graph pass of which what it prints goes to the standard error stream, since the other one holds the dump."""
    if not isinstance(run, FunctionType):
        return run

    @functools.wraps(run)
    def quiet(graph: Any, context: Any) -> Any:
        with contextlib.redirect_stdout(sys.stderr):
            return run(graph, context)

    return quiet


def _loaded(file: Path) -> ModuleType:
    """A file as a module, under its own name where that is free, so that what imports it gets the same one."""
    name = file.stem if file.stem not in sys.modules else f"tensorc_passes_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ArgumentError(f"--passes {file}: this is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(file.resolve().parent))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        own = error.__traceback__
        while own is not None and Path(own.tb_frame.f_code.co_filename).resolve() != file.resolve():
            own = own.tb_next
        traceback.print_exception(error.with_traceback(own))
        raise ArgumentError(f"--passes {file}: it failed") from error
    finally:
        sys.path.remove(str(file.resolve().parent))
    return module


def _checked(name: str) -> tuple[str, str]:
    """The names of the module and of the class.  Raises ArgumentError."""
    from tensorc.passes.pipeline import default

    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*([_-][A-Za-z0-9]+)*", name):
        raise ArgumentError(f"--new-pass {name}: a name is letters and digits, as in FastSwish or fast_swish")
    module = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").lower()
    rule = "".join(part[:1].upper() + part[1:] for part in module.split("_"))
    if keyword.iskeyword(module) or keyword.iskeyword(rule):
        raise ArgumentError(f"--new-pass {name}: {module} is a word of Python's")
    if rule in (*default().rules, *default().names) or module in default().names:
        raise ArgumentError(f"--new-pass {name}: the compiler has a pass of that name already")
    if importlib.util.find_spec(module) is not None:
        raise ArgumentError(f"--new-pass {name}: {module}.py would hide a module of that name, "
                            f"or is one that is there already")
    return module, rule
