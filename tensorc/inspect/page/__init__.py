"""One page that shows what became of functions: `tensorc --dump-ir FILE --html out.html`.

The page is one file that asks no network for anything.  What it shows is computed here (`graphs`, `code`), and packed
function by function, so that a browser unpacks what is looked at; how it is shown stands in the files beside this one.
"""

from __future__ import annotations

import base64
import html
import itertools
import json
import re
import zlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorc
from tensorc.errors import ArgumentError
from tensorc.inspect.found import Found
from tensorc.inspect.history import History, trace
from tensorc.inspect.page.code import functions_data, kernels_data
from tensorc.inspect.page.graphs import Tables, history_data

if TYPE_CHECKING:
    from tensorc.runtime.profile import Profile

Data = dict[str, Any]

SCRIPTS = ("model.js", "layout.js", "drawing.js", "rows.js", "listing.js", "details.js", "kernels.js", "page.js")
"""In the order in which they build on one another."""


def write_page(path: str, functions: Sequence[Found], title: str, profiles: Sequence[Profile | None] = ()) -> str:
    """Writes the page; returns what there is to say of it.  Raises ArgumentError if it cannot be written."""
    text = page(functions, title, profiles)
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ArgumentError(f"{path} cannot be written: {error.strerror}") from None
    return f"{path}: {', '.join(found.names[-1] for found in functions)}"


def page(functions: Sequence[Found], title: str, profiles: Sequence[Profile | None] = ()) -> str:
    """The page as HTML.

    Args:
        functions: what it shows, in this order.
        title: what it is called, the name of their file say.
        profiles: where the time of each function's call goes, if that is to be shown.

    Raises: ArgumentError for a profile from a GPU, which has other kernels than the page shows.
    """
    for profile in profiles:
        if profile is not None and profile.gpu is not None:
            raise ArgumentError(f"{profile.name} was timed on {profile.gpu}, but the page shows kernels for the CPU: "
                                f"print the times without --html, or take them with TENSORC_DEVICE=cpu")
    entries = []
    for found, profile in itertools.zip_longest(functions, profiles):
        history = trace(found.graph, found.pipeline)
        graphs, codes = function_data(found, history)
        measured = {"seconds": [round(stage.seconds, 6) for stage in history.stages],
                    "profile": None if profile is None else profile_data(profile)}
        entries.append({
            "name": found.names[-1],
            "graphs": packed(graphs | {"measured": measured}),
            "codes": {name: packed(code) for name, code in codes.items()},
        })
    return assembled(title, {"version": tensorc.__version__, "title": title, "functions": entries})


def function_data(found: Found, history: History) -> tuple[Data, Data]:
    """What the page shows of a function: its stages and kernels; and by name, the code of the functions they became."""
    tables = Tables()
    data: Data = {
        "name": found.names[-1],
        "names": list(found.names),
        "where": None if found.where is None else str(found.where),
        **history_data(history, tables),
        "kernels": [],
    }
    codes: Data = {}
    last = history.stages[-1]
    if history.failure is None and last.graph.plan is not None:
        data["kernels"] = kernels_data(last.kernels, tables)
        shown = {name for kernel in data["kernels"] for part in kernel["parts"]
                 for names in part["functions"].values() for name in names}
        codes = dict(functions_data(last.kernels, sorted(shown)))
    return data | tables.data(), codes


def profile_data(profile: Profile) -> Data:
    """A profile: times in seconds, rates in units a second, `limit` as a share of what the machine can do."""
    return {
        "seconds": profile.seconds,
        "sizes": dict(profile.sizes),
        "threads": profile.threads,
        "runs": profile.runs,
        "limits": {"memory": profile.limits.memory, "cache": profile.limits.cache, "flops": profile.limits.flops},
        "kernels": {row.kernel: {"calls": row.calls, "seconds": row.seconds, "share": row.share, "bytes": row.bytes,
                                 "flops": row.flops, "limit": row.limit, "bound": row.bound} for row in profile.rows},
    }


def packed(data: Data) -> str:
    """Data as the page's script unpacks it: JSON, compressed, in base64."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def assembled(title: str, data: Data) -> str:
    """The page's files in one."""
    here = files(__package__)
    read = {name: (here / name).read_text(encoding="utf-8") for name in ("index.html", "page.css", *SCRIPTS)}
    parts = {
        "title": html.escape(f"{title} · tensorc"),
        "style": read["page.css"],
        "data": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),  # or it could end its element
        "scripts": "\n".join(read[name] for name in SCRIPTS),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda m: parts[m[1]], read["index.html"])
