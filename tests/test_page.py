"""What the page of `--html` is told of functions: complete, the same every time, and safe to stand in a page."""

import base64
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pages import history_of, long, of_script, small

from tensorc.cli import main
from tensorc.errors import TensorcError
from tensorc.inspect.page import SCRIPTS, assembled, function_data, page
from tensorc.ir.text import dump


@pytest.fixture(scope="module")
def functions(tmp_path_factory):
    """The data of a graph from text, of a training step, and of a loop, each with its history."""
    found = {each.names[-1]: each for each in [*small(), *of_script(tmp_path_factory.mktemp("script"))]}
    histories = {name: history_of(each) for name, each in found.items()}
    return {name: (*function_data(found[name], history), history) for name, history in histories.items()}


NAMES = ("logsumexp", "train", "loop")


def test_the_data_of_a_function(functions, golden: Callable[[str, str], None]) -> None:
    """All but the names of functions in the code, of which processors have their own, and what passes are."""
    data, _, _ = functions["logsumexp"]
    kernels = [k | {"parts": [{"name": p["name"], "loops": p["loops"]} for p in k["parts"]]} for k in data["kernels"]]
    stages = [{k: v for k, v in stage.items() if k != "doc"} for stage in data["stages"]]
    told = [*data["nodes"], *stages, *kernels, data["rules"], data["lines"]]
    golden("page/logsumexp.txt", "\n".join(json.dumps(each, ensure_ascii=False) for each in told))


def spelled(data, stage, block):
    """A block's text from the data alone."""
    nodes = data["nodes"]
    names = {n: nodes[n]["name"] for n in block["params"]} | {n: f"%{i}" for i, n in enumerate(block["nodes"])}
    titles = {b["graph"]: b["title"] for b in stage["blocks"]}

    def name(n):
        return names.get(n) or nodes[n]["name"]

    lines = []
    for n in block["nodes"]:
        about = nodes[n]
        attributes = re.sub(r"@<(\d+)>", lambda m: f"@{titles[int(m[1])]}", about.get("attrs", ""))
        place = f"  @ {block['places'][n]}" if n in block["places"] else ""
        operands = ", ".join(map(name, about["args"]))
        lines.append(f"  {name(n)}: {about['type']} = {about['op']}({operands}) {attributes}".rstrip() + place)
    updates = ", ".join(f"{name(v)} := {name(n)}" for v, n in block["updates"])
    returned = ", ".join(map(name, block["outputs"]))
    return [*lines, f"  return {returned}" + (f" ; {updates}" if updates else "")]


@pytest.mark.parametrize("name", NAMES)
def test_every_graph_can_be_read_from_the_data(functions, name: str) -> None:
    data, _, history = functions[name]
    for told, stage in zip(data["stages"], history.stages, strict=True):
        lines = [line for block in told["blocks"] for line in spelled(data, told, block)]
        expected = [line for line in dump(stage.graph, lines=False).splitlines() if line.startswith("  ")]
        assert lines == expected, told["name"]


@pytest.mark.parametrize("name", NAMES)
def test_changes_lead_from_stage_to_stage(functions, name: str) -> None:
    data, _, history = functions[name]
    for before, told, stage in zip(data["stages"], data["stages"][1:], history.stages[1:], strict=False):
        old = {n for block in before["blocks"] for n in (*block["params"], *block["nodes"])}
        new = {n for block in told["blocks"] for n in (*block["params"], *block["nodes"])}
        assert new - old <= told["came"].keys()
        assert old - new <= told["went"].keys()
        assert {source for _, source, *_ in told["came"].values()} <= old | {None}
        assert sum(told["fired"].values()) == len(stage.fired)
        assert told["fired"].keys() <= data["rules"].keys()


def test_the_rewrite_that_made_a_node_is_named_with_its_formula(functions) -> None:
    data, _, _ = functions["logsumexp"]
    simplify = data["stages"][2]
    (made,) = simplify["blocks"][0]["nodes"]
    assert simplify["name"] == "simplify"
    assert simplify["came"][made][0] == "made"
    assert simplify["came"][made][2:] == ["LogSumExp"]
    assert data["rules"]["LogSumExp"] == "log(sum(exp x)) → logsumexp x"


def test_nodes_know_the_lines_that_asked_for_them(functions) -> None:
    data, _, _ = functions["train"]
    product = next(n for n in data["nodes"] if n["op"] == "matmul")
    at = [data["lines"][i] for i in product["lines"]]
    assert {"file": "model.py", "line": 6, "call": "K.dot",
            "text": "loss = K.mean(K.categorical_crossentropy(y, K.softmax(K.dot(x, w))))"} in at


def test_bodies_of_loops_lead_to_those_they_were(functions) -> None:
    data, _, _ = functions["loop"]
    for before, told in zip(data["stages"], data["stages"][1:], strict=False):
        titles = [before["blocks"][b["before"]]["title"] for b in told["blocks"]]
        assert titles == ["body0", ""], told["name"]


@pytest.mark.parametrize("name", NAMES)
def test_the_code_of_kernels_leads_back_to_lines_of_their_loops(functions, name: str) -> None:
    data, codes, _ = functions[name]
    assert data["kernels"]
    for kernel in data["kernels"]:
        for part in kernel["parts"]:
            lines = len(part["loops"].splitlines())
            for form, names in part["functions"].items():
                assert names, (kernel["name"], form)
                listings = [codes[n][form] for n in names if form in codes[n]]
                assert all(len(c["from"]) == len(c["text"].split("\n")) for c in listings)
                sources = {source for c in listings for source in c["from"]}
                assert sources - {0}
                assert max(sources) <= lines


def test_the_page_is_one_file_that_asks_for_nothing(functions) -> None:
    text = page(small(), "logsumexp.ir")
    assert not re.search(r"""(?:src|href)=["'](?!data:)|@import|url\(|https?:""", text)
    assert "default-src 'none'" in text
    assert "{{" not in text.replace("${{", "")
    assert text.count("<script") == text.count("</script>") == 2


def test_no_name_can_leave_its_place() -> None:
    text = assembled("</title><script>", {"functions": [], "title": "</script><script>alert(1)</script>"})
    assert text.count("<script") == text.count("</script>") == 2
    assert "</title><script>" not in text


def test_a_graph_without_a_plan_has_no_kernels() -> None:
    found = long(20)
    data, codes = function_data(found, history_of(found))
    assert (data["kernels"], codes) == ([], {})


def test_a_pass_that_fails_is_where_the_stages_end() -> None:
    def broken(graph, context):
        raise TensorcError("this pass is broken")

    (found,) = small()
    failing = replace(found, pipeline=found.pipeline.after("simplify", broken))
    data, codes = function_data(failing, history_of(failing))
    assert [stage["name"] for stage in data["stages"]] == ["input", "loops", "simplify"]
    assert "this pass is broken" in data["failure"]
    assert (data["kernels"], codes) == ([], {})


def test_no_script_is_forgotten() -> None:
    folder = Path(function_data.__code__.co_filename).parent
    assert {path.name for path in folder.glob("*.js")} == set(SCRIPTS)


def test_the_command(tmp_path, capsys) -> None:
    path = tmp_path / "out.html"
    assert main(["--dump-ir", "examples/logsumexp.ir", "--html", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: logsumexp\n"
    assert "logsumexp.ir · tensorc" in path.read_text()


def test_times_of_the_command(tmp_path, capsys) -> None:
    path = tmp_path / "out.html"
    assert main(["--time", "examples/logsumexp.ir", "--sizes", "n=8,m=300", "--html", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: logsumexp\n"
    (entry,) = json.loads(re.search(r'id="data">(.*?)</script>', path.read_text())[1])["functions"]
    profile = json.loads(zlib.decompress(base64.b64decode(entry["graphs"])))["measured"]["profile"]
    assert profile["sizes"] == {"n": 8, "m": 300}
    assert profile["kernels"].keys() == {"k0"}
    assert profile["kernels"]["k0"]["bytes"] == 4 * (8 * 300 + 8)


@pytest.mark.parametrize(("more", "what"), [
    (["--html", "{folder}/none/out.html"], "none/out.html cannot be written: No such file or directory"),
    (["--html", "{folder}/out.html", "--after", "fuse"], "--after has no meaning with it"),
])
def test_errors_of_the_command(tmp_path, capsys, more: list[str], what: str) -> None:
    assert main(["--dump-ir", "examples/logsumexp.ir", *(m.format(folder=tmp_path) for m in more)]) == 1
    assert what in capsys.readouterr().err
