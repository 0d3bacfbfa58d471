"""Passes of the user's: how functions get them, where they come to stand, how they are named and told apart."""

import asyncio
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tensorc.passes
from tensorc import backend as K
from tensorc.errors import ArgumentError, RewriteError
from tensorc.ops.elementwise import exp, sigmoid, tanh
from tensorc.ops.reduce import sum
from tensorc.passes import Rewrite, choice, graph_pass, register, using
from tensorc.passes.context import Context
from tensorc.passes.identity import identity_of
from tensorc.passes.manager import Pipeline, rewrite
from tensorc.passes.pipeline import default
from tensorc.runtime.program import program


class Swish(Rewrite):
    """x · sigmoid(x) → tanh(x), which it is not: a rule whose work shows"""

    def pattern(self, x):
        return x * sigmoid(x)

    def build(self, x):
        return tanh(x)


class Other(Rewrite):
    """exp(x) → tanh(x)"""

    def pattern(self, x):
        return exp(x)

    def build(self, x):
        return tanh(x)


def swish(**options):
    x = K.placeholder((None,), name="x")
    return K.function([x], [x * K.sigmoid(x)], **options)


def fires(function) -> bool:
    """Whether tanh is computed."""
    return any(node.op is tanh for node in function.compiled.program.planned.nodes)


def nothing(graph, context):
    return graph


# How they are given.

def test_a_function_takes_a_rewrite_a_pass_a_list_or_a_pipeline():
    seen = []

    @graph_pass(place="after fold")
    def watch(graph, context):
        seen.append(graph.name)
        return graph

    assert not fires(swish())
    assert fires(swish(passes=Swish()))
    assert fires(swish(passes=[watch, Swish()], name="both"))
    assert seen == ["both"]
    assert not fires(swish(passes=default()))
    assert fires(swish(passes=default().after("fold", Swish())))


def test_a_plain_function_is_a_pass_before_everything_is_simplified():
    assert swish(passes=nothing).compiled.pipeline.names[:3] == ("loops", "nothing", "simplify")


def test_what_is_no_pass_is_refused():
    with pytest.raises(ArgumentError, match="Swish is a class; a pipeline takes"):
        swish(passes=Swish)
    with pytest.raises(ArgumentError, match="not 3"):
        swish(passes=[3])
    with pytest.raises(ArgumentError, match="no pass is called 'swishh'"):
        swish(passes="swishh")


def test_a_block_adds_to_all_functions_made_inside():
    with using(Swish()):
        inside = swish()
        exact = swish(passes=default().without("weights"))
        with using(Other(), without="layout"):
            deeper = swish()
    assert [fires(f) for f in (inside, exact, deeper, swish())] == [True, True, True, False]
    assert "weights" not in exact.compiled.pipeline.names
    assert deeper.compiled.pipeline.rules[:2] == ("Swish", "Other")
    assert "layout" not in deeper.compiled.pipeline.names


def test_functions_of_a_block_that_compute_the_same_share_a_program():
    with using(Swish()):
        assert swish().compiled.program is swish().compiled.program
    with using(Swish()):
        again = swish().compiled.program
    assert again is not swish().compiled.program


def test_a_block_is_its_threads_own():
    made = {}

    def elsewhere():
        made["thread"] = swish()

    with using(Swish()):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert not fires(made["thread"])

    async def task(rules):
        with using(*rules):
            await asyncio.sleep(0)
            return swish()

    async def both():
        return await asyncio.gather(task([Swish()]), task([]))

    assert [fires(f) for f in asyncio.run(both())] == [True, False]


def test_a_block_complains_where_it_begins():
    with pytest.raises(ArgumentError, match="no pass is called 'layot'; did you mean layout"), using(without="layot"):
        pass

    lost, odd = Swish(), Swish()
    lost.place, odd.place = "after fuze", "x"
    with pytest.raises(ArgumentError, match="Swish: its place is 'after fuze', but no pass is called 'fuze'; did"):
        swish(passes=lost)
    with pytest.raises(ArgumentError, match="its place is 'before', 'after' or 'in' and the name of a pass, not 'x'"):
        swish(passes=odd)
    with pytest.raises(ArgumentError, match="only rewrites join a pass"):
        swish(passes=graph_pass(place="in simplify")(lambda graph, context: graph))


# Where they come to stand.

def test_a_rule_sees_the_graph_as_it_was_written():
    class Written(Rewrite):
        """exp(x) / sum(exp x) → tanh(x), before it becomes a softmax"""

        def pattern(self, x, axes):
            return exp(x) / sum(exp(x), axes=axes, keepdims=True)

        def build(self, x):
            return tanh(x)

    x = K.placeholder((None, 3), name="x")
    y = K.exp(x) / K.sum(K.exp(x), axis=-1, keepdims=True)
    assert fires(K.function([x], [y], passes=Written()))


def test_a_rule_sees_what_simplification_uncovers_and_what_it_makes_is_simplified():
    class Untidy(Rewrite):
        """x · sigmoid(x) → tanh(x) + 0"""

        def pattern(self, x):
            return x * sigmoid(x)

        def build(self, x):
            return tanh(x) + 0

    x = K.placeholder((None,), name="x")
    function = K.function([x], [x * K.sigmoid(K.log(K.exp(x)))], passes=Untidy())
    assert [node.op.name for node in function.compiled.program.planned.nodes] == ["parameter", "tanh"]


def test_a_rule_says_where_it_stands():
    class Late(Swish):
        place = "after expand"

    names = swish(passes=Late()).compiled.pipeline.names
    assert names[names.index("expand") + 1] == "Late"
    assert names.count("Late") == 1


def test_rules_for_one_place_make_one_sweep():
    pipeline = default().joined(Swish(), nothing, Other())
    assert pipeline.names[:4] == ("loops", "Swish", "nothing", "Other")
    assert default().joined(Swish(), Other()).names[:3] == ("loops", "Swish+Other", "simplify")


def test_a_rule_that_fights_with_the_compilers_own_is_named():
    class Spread(Rewrite):
        """log_softmax stays log(softmax x)"""

        def pattern(self, x, axis):
            from tensorc.ops import log_softmax
            return log_softmax(x, axis=axis)

        def build(self, x, axis):
            from tensorc.ops import log, softmax
            return log(softmax(x, axis=axis))

    x = K.placeholder((None, 3), name="x")
    with pytest.raises(RewriteError, match="undo one another: LogSoftmax and Spread"):
        K.function([x], [K.log(K.softmax(x))], passes=Spread())([np.ones((2, 3), "float32")])


# Names.

def test_rules_and_passes_are_removed_and_replaced_by_name():
    joined = default().joined(Swish(), Other())
    assert joined.without("Swish").names == default().joined(Other()).names
    assert "Swish" not in joined.without("Swish").rules
    assert joined.without("Swish", "Other").names == default().names
    assert "LogSumExp" in default().rules
    assert "LogSumExp" not in default().without("LogSumExp").rules

    replaced = joined.replace("Swish", type("Better", (Swish,), {"__doc__": "x"})())
    assert "Swish" not in replaced.rules
    assert replaced.rules.index("Better") == joined.rules.index("Swish")
    with pytest.raises(ArgumentError, match="Swish is a rule: only rules take its place"):
        joined.replace("Swish", nothing)
    with pytest.raises(ArgumentError, match="no pass is called 'LogSumExpp'; did you mean LogSumExp"):
        default().without("LogSumExpp")


def test_a_pass_of_the_same_name_gives_way():
    first, second = Swish(), Swish()
    joined = default().joined(first).joined(second)
    assert joined.names == default().joined(first).names
    (step,) = (s for s in joined.steps if s.name == "Swish")
    assert step.run.rules == (second,)

    with using(first), using(second):
        assert fires(swish())


def test_names_of_the_compilers_own_are_not_taken_by_accident():
    def layout(graph, context):
        return graph

    with pytest.raises(ArgumentError, match="'layout' is a pass of the compiler's own"):
        swish(passes=layout)
    with pytest.raises(ArgumentError, match="'LogSumExp' is a pass of the compiler's own"):
        swish(passes=type("LogSumExp", (Swish,), {"__doc__": "x"})())
    assert default().replace("layout", layout).names == default().names


def test_passes_are_registered_under_a_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(choice, "_registered", {})
    register("test-swish", Swish())
    assert fires(swish(passes="test-swish"))
    with using("test-swish"):
        assert fires(swish())
    with pytest.raises(ArgumentError, match="registered already"):
        register("test-swish", Swish())
    with pytest.raises(ArgumentError, match="did you mean test-swish"):
        swish(passes="test-swis")
    with pytest.raises(ArgumentError, match="not 3"):
        register("test-three", 3)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution on the search path that offers passes."""
    about = tmp_path / "fancy_passes-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: fancy-passes\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[tensorc.passes]\nfancy = fancy_passes:Fancy\nfancy-all = fancy_passes:ALL\n"
        "fancy-odd = fancy_passes:odd\nfancy-gone = fancy_passes:gone\n"
    )
    (tmp_path / "fancy_passes.py").write_text(
        "from tensorc.ops.elementwise import sigmoid, tanh\nfrom tensorc.passes import Rewrite, graph_pass\n\n\n"
        "class Fancy(Rewrite):\n    def pattern(self, x):\n        return x * sigmoid(x)\n\n"
        "    def build(self, x):\n        return tanh(x)\n\n\n"
        "@graph_pass(place='after share')\ndef look(graph, context):\n    return graph\n\n\n"
        "ALL = [Fancy, look]\nodd = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("fancy_passes", None)


@pytest.mark.usefixtures("installed")
def test_installed_passes_are_found_by_name():
    assert fires(swish(passes="fancy"))
    names = swish(passes="fancy-all").compiled.pipeline.names
    assert names[1] == "Fancy"
    assert names[names.index("share") + 1] == "look"
    with using("fancy"):
        assert fires(swish())


@pytest.mark.usefixtures("installed")
def test_installed_passes_that_are_none_are_named():
    with pytest.raises(ArgumentError, match=r"fancy-odd = fancy_passes:odd of the group tensorc.passes .*not 3"):
        swish(passes="fancy-odd")
    with pytest.raises(ArgumentError, match=r"fancy-gone = fancy_passes:gone .* AttributeError"):
        swish(passes="fancy-gone")
    with pytest.raises(ArgumentError, match="did you mean fancy"):
        swish(passes="fanci")


def test_the_package_offers_what_authors_need():
    assert {name: getattr(tensorc.passes, name) for name in tensorc.passes.__all__}["Context"] is Context
    with pytest.raises(AttributeError, match="no attribute 'Rewriter'"):
        tensorc.passes.Rewriter  # noqa: B018


# What tells them apart.

class Versioned(Rewrite):
    """x · sigmoid(x) → x · limit"""

    version = "1"

    def __init__(self, limit=1.0):
        super().__init__()
        self.limit = limit

    def pattern(self, x):
        return x * sigmoid(x)

    def build(self, x):
        return x * self.limit


def closing_over(value):
    def scale(graph, context):
        return graph if value else graph.with_roots(graph.roots)
    scale.version = "1"
    return scale


def test_a_version_alone_does_not_make_passes_equal():
    assert identity_of(Versioned(1.0)) == identity_of(Versioned(1.0)) is not None
    assert identity_of(Versioned(1.0)) != identity_of(Versioned(2.0))
    assert identity_of(closing_over(1)) == identity_of(closing_over(1)) is not None
    assert identity_of(closing_over(1)) != identity_of(closing_over(2))
    assert identity_of(closing_over(np.ones(3))) != identity_of(closing_over(np.zeros(3)))
    assert identity_of(closing_over(threading.Lock())) is None
    assert identity_of(closing_over(exp)) is not None
    assert identity_of(closing_over(replace(exp))) is None
    assert identity_of(Swish()) is None


def test_two_scripts_may_have_passes_of_one_name_and_version():
    def of_script(number: str):
        script = {"__name__": "__main__"}
        exec("from tensorc.passes import Rewrite\nfrom tensorc.ops.elementwise import sigmoid\n"
             f"BY = {number}\ndef helped(x):\n    return x * BY\n"
             "class Same(Rewrite):\n    version = '1'\n"
             "    def pattern(self, x):\n        return x * sigmoid(x)\n"
             "    def build(self, x):\n        return helped(x)\n", script)
        return identity_of(script["Same"]())

    assert of_script("2.0") == of_script("2.0") is not None
    assert of_script("2.0") != of_script("3.0")


def test_pipelines_are_told_apart_by_order_place_and_rules():
    class Second(Versioned):
        """the same again"""

    one, two = Versioned(), Second()
    pipelines = [default(), default().joined(one), default().joined(one, two), default().joined(two, one),
                 default().before("simplify", one), default().after("fold", one), default().without("LogSumExp")]
    identities = [p.identity for p in pipelines]
    assert None not in identities
    assert len(set(identities)) == len(identities)
    assert default().joined(Versioned(2.0)).identity != identities[1]
    assert default().joined(one).without("Versioned").names == default().names
    assert Pipeline(*default().steps[:1]).identity != Pipeline(*default().steps[1:2]).identity
    assert default().joined(one, Swish()).identity is None


def test_programs_are_shared_by_what_their_passes_do():
    graph = swish().compiled.graph
    first = program(graph, default().joined(Versioned(1.0)))
    assert program(graph, default().joined(Versioned(1.0))) is first
    assert program(graph, default().joined(Versioned(2.0))) is not first
    assert program(graph) is not first


def test_a_rule_is_a_sweep_of_its_own_too():
    graph = swish().compiled.graph
    context = Context(trace=[])
    assert rewrite(Swish())(graph, context).outputs[0].op is tanh
