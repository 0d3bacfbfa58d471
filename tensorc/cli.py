"""The command `tensorc`: shows what the compiler makes of the functions in a script, or of graphs written as text.

    tensorc --dump-ir train.py                      every K.function of the script, after all passes
    tensorc --dump-ir train.py:step --after all     one of them, after each pass
    tensorc --dump-ir net.ir --stage asm            graphs from text, down to assembly
    tensorc --dump-ir net.ir --stage ptx            the same for a GPU, which need not be there
    tensorc --dump-ir train.py --html out.html      all of it on one page, for a browser
    tensorc --time train.py:step                    where the time of its last call goes, kernel by kernel
    tensorc --dump-ir train.py --passes mine.py     with the passes of a file in every function
    tensorc --new-pass FastSwish                    a file to start a pass from, and its test
    tensorc --devices                               what programs run on here

What a script prints goes to the standard error stream; the standard output holds the dump alone, and a dump of
graphs parses back.

What the command can do stands in two tables: ACTIONS, of which one is asked for, and VIEWS, of which one may be chosen
to say what `--dump-ir` shows.  What they call is imported when it is asked for.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import tensorc
from tensorc.errors import ArgumentError, TensorcError

if TYPE_CHECKING:
    from tensorc.inspect.found import Found

STAGES = ("graph", "loops", "llvm", "asm", "cuda", "ptx")


@dataclass(frozen=True)
class Action:
    """Something to do: the option that asks for it, the name of its value if it takes one, and what does it.

    `run` takes all options of the command line, and returns the exit status.
    """

    option: str
    metavar: str | None
    help: str
    run: Callable[[argparse.Namespace], int]


@dataclass(frozen=True)
class View:
    """Something that `--dump-ir` can show of functions: the option, the name of its value, and what prints it.

    `after` says whether `--after` means something to it; `together`, whether it wants all functions that were asked
    for at once.  Otherwise it is given each as soon as the script makes it, which may go on to train for hours.
    """

    option: str
    metavar: str | None
    help: str
    show: Callable[[Sequence[Found], argparse.Namespace], None]
    after: bool = True
    together: bool = False


Entry = TypeVar("Entry", Action, View)


def _dump(options: argparse.Namespace) -> int:
    """`--dump-ir`: shows the functions of a file; returns the status of the script, 0 for text."""
    view = _asked(VIEWS, options)
    if options.stage != "graph" and (view or options.after):
        other = view.option if view else "--after"
        raise ArgumentError(f"{other} shows graphs; it has no meaning with --stage {options.stage}")
    if view and options.after and not view.after:
        raise ArgumentError(f"{view.option} is about all passes; --after has no meaning with it")

    from tensorc.inspect.found import chosen, functions_of, located

    path, name = located(options.dump_ir)
    show = view.show if view else _stages
    shown: list[object] = []

    def hear(number: int, found: Found) -> None:
        if name in (None, str(number), *found.names):
            shown.append(found.function)
            show([found], options)
            sys.stdout.flush()

    functions, status = functions_of(path, options.arguments, hear=None if view and view.together else hear)
    if functions or status == 0:
        left = [f for f in chosen(functions, name, path) if f.function is None or f.function not in shown]
        if left:
            show(left, options)
    return status


def _stages(functions: Sequence[Found], options: argparse.Namespace) -> None:
    """What is shown if no other view is asked for."""
    from tensorc.inspect import stages
    from tensorc.inspect.paint import paint_for

    for found in functions:
        if options.stage == "graph":
            stages.print_graphs(found, options.after, paint_for(sys.stdout))
        else:
            stages.print_code(found, options.stage)


def _diff(functions: Sequence[Found], options: argparse.Namespace) -> None:
    from tensorc.inspect.difference import print_differences
    from tensorc.inspect.history import trace
    from tensorc.inspect.paint import paint_for

    for found in functions:
        history = trace(found.graph, found.pipeline)
        if options.after is not None:
            history.index(options.after)
        print_differences(history, paint_for(sys.stdout), options.after)


def _node(functions: Sequence[Found], options: argparse.Namespace) -> None:
    from tensorc.inspect.follow import check_after, print_node
    from tensorc.inspect.history import trace
    from tensorc.inspect.paint import paint_for

    check_after(options.after)
    if len(functions) > 1:
        raise ArgumentError(f"--node is about one function, and there are {', '.join(f.names[0] for f in functions)}; "
                            f"name it: FILE:NAME")
    for found in functions:
        print_node(trace(found.graph, found.pipeline), options.node, options.after, paint_for(sys.stdout))


def _why(functions: Sequence[Found], options: argparse.Namespace) -> None:
    from tensorc.inspect.history import trace
    from tensorc.inspect.paint import paint_for
    from tensorc.inspect.why import print_why

    for found in functions:
        print_why(trace(found.graph, found.pipeline, [options.why]), options.why, paint_for(sys.stdout))


def _dot(functions: Sequence[Found], options: argparse.Namespace) -> None:
    from tensorc.inspect.dot import dot
    from tensorc.inspect.follow import check_after
    from tensorc.inspect.stages import history_up_to

    check_after(options.after)
    for found in functions:
        print(dot(history_up_to(found, options.after).stages[-1]))


def _list(options: argparse.Namespace) -> int:
    """`--list`: names the functions of a file; returns the status of the script, 0 for text."""
    from tensorc.inspect.found import chosen, functions_of, located
    from tensorc.inspect.listing import listing

    path, name = located(options.list)
    functions, status = functions_of(path, options.arguments)
    if functions or status == 0:
        print(listing(chosen(functions, name, path)))
    return status


def _html(functions: Sequence[Found], options: argparse.Namespace) -> None:
    from tensorc.inspect.found import located
    from tensorc.inspect.page import write_page

    print(write_page(options.html, functions, located(options.dump_ir)[0].name))


def _time(options: argparse.Namespace) -> int:
    """`--time`: shows where the time of functions goes; returns the status of the script, 0 for text."""
    from tensorc.inspect.found import chosen, functions_of, located
    from tensorc.inspect.times import parsed_sizes, print_times, profiles_of

    sizes = parsed_sizes(options.sizes)
    path, name = located(options.time)
    functions, status = functions_of(path, options.arguments, inputs=True)
    if functions or status == 0:
        timed = chosen(functions, name, path)
        profiles = profiles_of(timed, sizes, named=name is not None)
        if options.html is None:
            print_times(timed, profiles)
        else:
            from tensorc.inspect.page import write_page

            print(write_page(options.html, timed, path.name, list(profiles)))
    return status


def _rules(options: argparse.Namespace) -> int:
    from tensorc.inspect.paint import paint_for
    from tensorc.inspect.rules import rules
    from tensorc.passes.choice import chosen
    from tensorc.passes.pipeline import default

    print(rules(chosen() or default(), paint_for(sys.stdout)))
    return 0


def _devices(options: argparse.Namespace) -> int:
    from tensorc.inspect.machine import devices

    print(devices())
    return 0


def _new_pass(options: argparse.Namespace) -> int:
    from tensorc.authoring import new_pass

    rule, test = new_pass(options.new_pass, Path.cwd())
    print(f"wrote {rule.name} and {test.name}\n"
          f"  pytest {test.name}\n"
          f"  tensorc --dump-ir SCRIPT.py --passes {rule.name} --after all")
    return 0


def _with_passes(options: argparse.Namespace) -> AbstractContextManager[None]:
    """What `--passes` and `--without` ask for, in every function made inside."""
    if not options.passes and not options.without:
        return nullcontext()
    from tensorc.authoring import passes_in
    from tensorc.passes import using

    given = [p for text in options.passes for p in (passes_in(Path(text)) if text.endswith(".py") else [text])]
    return using(*given, without=options.without)


ACTIONS: tuple[Action, ...] = (
    Action("--dump-ir", "FILE[:NAME]", "functions of a Python script, which is run, or of a .ir file", _dump),
    Action("--list", "FILE", "the functions of a file: their names, where they were made, their sizes", _list),
    Action("--time", "FILE[:NAME]", "the time that each kernel takes, at the last call of a function", _time),
    Action("--new-pass", "NAME", "writes a rewrite to start from, and its test, into this folder", _new_pass),
    Action("--rules", None, "the passes in order, and the rewrites of each", _rules),
    Action("--devices", None, "what programs run on here", _devices),
)

VIEWS: tuple[View, ...] = (
    View("--diff", None, "what each pass changed, or the one that --after names", _diff),
    View("--node", "N", "the history of the node that the dump (--after PASS) calls N", _node, together=True),
    View("--why", "RULE", "where a rewrite fired, where it nearly did, and why it did not", _why, after=False),
    View("--dot", None, "the graph for Graphviz: tensorc … --dot | dot -Tsvg", _dot),
    View("--html", "OUT.html", "one page with graphs, kernels and code; after --time also times", _html, after=False),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status, 0 for success."""
    options = _parser().parse_args(arguments)
    action = _asked(ACTIONS, options)
    assert action is not None                       # the parser asks for one
    try:
        with _with_passes(options):
            status = action.run(options)
        sys.stdout.flush()
    except TensorcError as error:
        print(f"tensorc: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader, such as `head`, has had enough; what is still buffered goes nowhere at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tensorc",
        usage="tensorc ACTION [options] [-- ARGUMENTS OF THE SCRIPT]",
        description="Shows what the compiler makes of the functions in a script, or of graphs written as text.",
        epilog="What the script prints goes to the standard error stream.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=100),
    )
    actions = parser.add_argument_group("actions").add_mutually_exclusive_group(required=True)
    for action in ACTIONS:
        _add(actions, action)
    actions.add_argument("--version", action="version", version=f"tensorc {tensorc.__version__}")

    views = parser.add_argument_group("what --dump-ir shows").add_mutually_exclusive_group()
    for view in VIEWS:
        _add(views, view)
    shown = parser.add_argument_group("of what")
    shown.add_argument("--after", metavar="PASS", 
                       help="the graph after this pass; `input`: as built, `all`: after each, `changed`: after each "
                            "that changed it")
    shown.add_argument("--stage", choices=STAGES, default="graph", help="how far down to go (default: graph)")
    added = parser.add_argument_group("through which passes")
    added.add_argument("--passes", metavar="FILE|NAME", action="append", default=[],
                       help="those of a Python file, or installed under a name, join every function's")
    added.add_argument("--without", metavar="PASS", action="append", default=[], help="leaves out a pass or a rule")
    timed = parser.add_argument_group("what --time runs")
    timed.add_argument("--sizes", metavar="n=128,…", help="sizes of the graphs of a .ir file (default: 64 each)")
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    return parser


def _add(group: argparse._MutuallyExclusiveGroup, entry: Action | View) -> None:
    if entry.metavar is None:
        group.add_argument(entry.option, action="store_true", help=entry.help)
    else:
        group.add_argument(entry.option, metavar=entry.metavar, help=entry.help)


def _asked(entries: Sequence[Entry], options: argparse.Namespace) -> Entry | None:
    """The entry of a table whose option is given."""
    given = vars(options)
    return next((e for e in entries if given[e.option.lstrip("-").replace("-", "_")] not in (None, False)), None)
