"""Compiled code on disk: what is kept, what is refused, what another process finds."""

import errno
import json
import logging
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tensorc import backend as K
from tensorc.ir.types import f32
from tensorc.ops.define import defop
from tensorc.ops.elementwise import exp
from tensorc.passes.manager import Pipeline
from tensorc.passes.pipeline import default
from tensorc.passes.rewrite import Rewrite
from tensorc.runtime import identity, store
from tensorc.runtime.program import Program, canonical
from tensorc.runtime.store import Entry, Store

POSIX = pytest.mark.skipif(os.name != "posix", reason="owners and modes are those of POSIX")

KEY = "ab" * 32

ARRAYS: tuple[store.Array, ...] = (
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.array(True),
    np.zeros((0, 4), np.int64),
    np.array([1.5], np.float16),
    np.array([1.5, 2], "bfloat16"),
)


@pytest.fixture
def kept(tmp_path: Path) -> Store:
    return Store(tmp_path / "kept", 1_000_000)


def entry(size: int = 100) -> Entry:
    return Entry(bytes(i % 251 for i in range(size)), {"order": [1, 0]}, ARRAYS)


def unwanted() -> Entry:
    raise AssertionError("made anew")


class TestEntries:
    def test_what_is_kept_comes_back(self, kept: Store) -> None:
        kept.put(KEY, entry())
        found = kept.fetch(KEY, unwanted)

        assert (found.image, found.facts) == (entry().image, {"order": [1, 0]})
        for got, want in zip(found.arrays, ARRAYS, strict=True):
            assert got.dtype == want.dtype
            assert got.shape == want.shape
            assert got.tobytes() == want.tobytes()
            assert got.flags.aligned

    def test_a_missing_entry_is_made_once(self, kept: Store) -> None:
        assert kept.get(KEY) is None
        kept.fetch(KEY, entry)
        kept.fetch(KEY, unwanted)

    @pytest.mark.parametrize("at", [0, 15, 17, 60, 81, 100, 170, -1])
    def test_a_changed_byte_is_noticed(self, kept: Store, at: int) -> None:
        kept.put(KEY, entry())
        (path,) = kept.folder.glob("*.program")
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)

        assert kept.get(KEY) is None

    @pytest.mark.parametrize("length", [0, 1, 16, 50, 80, 81, 120, -1])
    def test_a_file_cut_short_is_noticed(self, kept: Store, length: int) -> None:
        kept.put(KEY, entry())
        (path,) = kept.folder.glob("*.program")
        path.write_bytes(path.read_bytes()[:length])

        assert kept.get(KEY) is None
        assert kept.fetch(KEY, entry).image == entry().image
        assert kept.fetch(KEY, unwanted).image == entry().image

    def test_an_entry_under_a_wrong_name_is_not_taken(self, kept: Store) -> None:
        kept.put(KEY, entry())
        (path,) = kept.folder.glob("*.program")
        path.rename(kept.folder / f"{'cd' * 32}.program")

        assert kept.get("cd" * 32) is None


class TestFolder:
    @POSIX
    def test_only_the_owner_reads_and_writes(self, kept: Store) -> None:
        kept.fetch(KEY, entry)

        assert stat.S_IMODE(kept.folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in kept.folder.iterdir()} == {0o600}

    @POSIX
    @pytest.mark.parametrize("mode", [0o770, 0o702])
    def test_a_folder_that_others_write_to_is_refused(self, tmp_path: Path, mode: int) -> None:
        tmp_path.chmod(mode)
        with pytest.raises(PermissionError, match="others may write"):
            Store(tmp_path, 1000)

    @POSIX
    def test_a_folder_of_another_user_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        mine = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
        with pytest.raises(PermissionError, match="others may write"):
            Store(tmp_path, 1000)

    @POSIX
    def test_an_entry_that_others_write_to_is_not_taken(self, kept: Store) -> None:
        kept.put(KEY, entry())
        (path,) = kept.folder.glob("*.program")
        path.chmod(0o666)

        assert kept.get(KEY) is None
        kept.fetch(KEY, entry)
        kept.fetch(KEY, unwanted)

    def test_entries_not_used_for_longest_make_room(self, tmp_path: Path) -> None:
        kept = Store(tmp_path, 4000)
        keys = [f"{i:02d}" * 32 for i in range(4)]
        for age, key in enumerate(keys[:3]):
            kept.put(key, Entry(bytes(1000)))
            os.utime(tmp_path / f"{key}.program", (1000 + age, 1000 + age))

        kept.fetch(keys[0], unwanted)
        kept.put(keys[3], Entry(bytes(1000)))

        assert [kept.get(key) is not None for key in keys] == [True, False, False, True]

    def test_what_is_larger_than_the_store_is_not_kept(self, tmp_path: Path) -> None:
        kept = Store(tmp_path, 500)
        kept.put(KEY, Entry(bytes(1000)))
        assert list(tmp_path.iterdir()) == []

    def test_unfinished_files_are_removed_once_they_are_old(self, kept: Store) -> None:
        old, new = kept.folder / "unfinished-1", kept.folder / "unfinished-2"
        for path in (old, new):
            path.touch()
        os.utime(old, (1000, 1000))

        kept.put(KEY, entry())
        assert (old.exists(), new.exists()) == (False, True)


class TestTrouble:
    """A store that does not work is no reason for a program not to."""

    def test_a_full_disk(self, kept: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        def full(source: str, target: Path) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "replace", full)
        for _ in range(3):
            assert kept.fetch(KEY, entry).image == entry().image

        assert [record.getMessage().count("No space left") for record in caplog.records] == [1]
        assert not list(kept.folder.glob("unfinished-*"))

    def test_a_folder_that_is_gone(self, kept: Store) -> None:
        kept.folder.rmdir()
        assert kept.fetch(KEY, entry).image == entry().image

    def test_an_entry_that_is_a_folder(self, kept: Store) -> None:
        (kept.folder / f"{KEY}.program").mkdir()
        assert kept.fetch(KEY, entry).image == entry().image

    def test_a_failure_to_compile_leaves_the_lock_free(self, kept: Store) -> None:
        with pytest.raises(AssertionError, match="made anew"):
            kept.fetch(KEY, unwanted)
        assert kept.fetch(KEY, entry).image == entry().image


@pytest.mark.skipif(sys.platform == "win32", reason="there are no locks")
class TestLocks:
    def test_of_many_who_ask_one_compiles(self, kept: Store) -> None:
        made: list[int] = []

        def slow() -> Entry:
            made.append(1)
            time.sleep(0.05)
            return entry()

        callers = [threading.Thread(target=kept.fetch, args=(KEY, slow)) for _ in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()

        assert len(made) == 1

    def test_a_lock_that_nobody_gives_back_is_passed_by(self, kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store, "PATIENCE", 0.05)
        with kept._lock(KEY):
            assert kept.fetch(KEY, entry).image == entry().image


class TestEnvironment:
    @pytest.fixture(autouse=True)
    def _asked_anew(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        for name in ("TENSORC_CACHE", "TENSORC_CACHE_DIR", "TENSORC_CACHE_SIZE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        store.shared.cache_clear()
        yield
        store.shared.cache_clear()

    def test_where_it_lies(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        if sys.platform == "linux":
            assert store.folder() == tmp_path / ".cache" / "tensorc"
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
            assert store.folder() == tmp_path / "xdg" / "tensorc"

        monkeypatch.setenv("TENSORC_CACHE_DIR", str(tmp_path / "here"))
        assert store.folder() == tmp_path / "here"

    def test_it_can_be_turned_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TENSORC_CACHE", "0")
        assert store.shared() is None
        assert store.fetch(KEY, entry).image == entry().image

    def test_how_much_it_holds(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TENSORC_CACHE_DIR", str(tmp_path))
        for asked, limit in (("3", 3_000_000), ("much", 512_000_000)):
            monkeypatch.setenv("TENSORC_CACHE_SIZE", asked)
            store.shared.cache_clear()
            found = store.shared()
            assert found is not None
            assert found.limit == limit

    def test_a_folder_that_cannot_be_made_is_done_without(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("TENSORC_CACHE_DIR", str(tmp_path / "file"))

        assert store.fetch(KEY, entry).image == entry().image
        assert "is not kept" in caplog.text


class Cheap(Rewrite):
    """exp x → x"""

    version: str | None = None

    def pattern(self, x):  # type: ignore[no-untyped-def]
        return exp(x)

    def build(self, x):  # type: ignore[no-untyped-def]
        return x


@pytest.fixture
def _unedited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys also while somebody edits the sources."""
    monkeypatch.setattr(identity, "_compiler", lambda: "this compiler")


@pytest.mark.usefixtures("_unedited")
class TestKeys:
    def key(self, pipeline: Pipeline | None = None) -> str | None:
        graph = K.function([], [K.exp(K.constant([1.0, 2.0]))]).compiled.graph
        return identity.of_program(graph, canonical(graph), pipeline)

    def test_own_pipelines_are_told_apart(self) -> None:
        keys = [self.key(pipeline) for pipeline in (None, default().without("fold"), default().up_to("share"))]
        assert None not in keys
        assert len(set(keys)) == 3
        assert self.key(default()) == keys[0]

    def test_passes_of_unknown_version_are_not_kept(self) -> None:
        assert self.key(default().before("fuse", Cheap())) is None
        assert self.key(default().before("fuse", lambda graph, context: graph)) is None

    def test_a_pass_may_carry_a_version(self) -> None:
        keys = []
        for version in ("1", "2"):
            rule = Cheap()
            rule.version = version
            keys.append(self.key(default().before("fuse", rule)))
        assert len({*keys, None, self.key()}) == 4

    def test_operations_of_others_are_not_kept(self) -> None:
        from tensorc.ir.node import OPS

        twice = defop("twice", doc="2 x", infer=lambda x: x, reference=lambda x: 2 * x,
                      gradient=lambda node, g: [2 * g], expand=lambda node: node.x + node.x)
        try:
            x = K.placeholder((2,))
            graph = K.function([x], [x + 1]).compiled.graph
            assert identity.of_program(graph, canonical(graph), None) is not None

            odd = graph.with_roots([twice(graph.params[0])])
            assert odd.outputs[0].dtype is f32
            assert identity.of_program(odd, canonical(odd), None) is None
        finally:
            del OPS["twice"]

    def test_sources_newer_than_the_process_make_no_keys(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(identity, "IMPORTED", time.time() + 1)
        assert identity._sources() is not None
        monkeypatch.setattr(identity, "IMPORTED", 0.0)
        assert identity._sources() is None


@pytest.mark.usefixtures("_unedited")
class TestPrograms:
    def test_a_damaged_program_is_compiled_again(self, kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store, "shared", lambda: kept)
        x = K.placeholder((None, 3))
        graph = K.function([x], [K.dot(x, K.constant(np.ones((3, 2))))]).compiled.graph

        text = canonical(graph)

        def made() -> Program:
            return Program(graph, text, None)

        assert made().compiled
        assert not made().compiled

        path = kept.folder / f"{identity.of_program(graph, text, None)}.program"
        path.write_bytes(path.read_bytes()[:-7])
        assert made().compiled
        assert not made().compiled

    def test_a_loaded_program_shows_what_became_of_it(self, kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store, "shared", lambda: kept)
        x = K.placeholder((None, 3))
        graph = K.function([x], [K.softmax(x)]).compiled.graph

        first, second = (Program(graph, canonical(graph), None) for _ in range(2))
        assert list(second.times) == ["load"]
        assert str(second.planned) == str(first.planned)
        assert second.llvm() == first.llvm()


MODEL = """
import json, logging, sys
import numpy as np

logged = []
logging.getLogger("tensorc").addHandler(handler := logging.Handler())
logging.getLogger("tensorc").setLevel("DEBUG")
handler.emit = lambda record: logged.append(record.getMessage().split()[0])

from tensorc import backend as K

x = K.placeholder((None, 16), name="images")
w = K.variable(np.linspace(-1, 1, 16 * 4).reshape(16, 4))
h = K.dropout(K.relu(K.dot(x, w)), 0.5, seed=int(sys.argv[1]))
loss = K.mean(K.square(h - K.arange(4, dtype="float32")))
(g,) = K.gradients(loss, [w])
train = K.function([x], [loss, h], updates=[(w, w - 0.1 * g)])
table = K.constant(np.arange(200.0).reshape(50, 4))
look = K.function([], [table * 2])

results = [train([np.ones((n, 16))])[0].item() for n in (3, 5, 3)] + [look([])[0].sum().item()]
compilers = ("passes.pipeline", "codegen.assemble", "codegen.cpu.assemble", "codegen.lower", "codegen.cpu.emit")
print(json.dumps({
    "logged": sorted(logged), "results": results,
    "imported": [name for name in (*(f"tensorc.{c}" for c in compilers), "networkx", "numba") if name in sys.modules],
}))
"""


def run_model(folder: Path, seed: int = 7) -> dict[str, list[object]]:
    environment = {k: v for k, v in os.environ.items() if k != "TENSORC_CACHE"} | {"TENSORC_CACHE_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", MODEL, str(seed)], env=environment, capture_output=True, text=True,
        check=False, cwd=Path(__file__).parent.parent,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[object]] = json.loads(done.stdout)
    return found


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    first, second, other = run_model(tmp_path), run_model(tmp_path), run_model(tmp_path, seed=8)

    assert first["logged"] == ["compiled", "compiled"]
    assert second["logged"] == other["logged"] == ["loaded", "loaded"]
    assert second["imported"] == []
    assert second["results"] == first["results"] != other["results"]


def test_tests_do_not_depend_on_what_earlier_runs_left(caplog: pytest.LogCaptureFixture) -> None:
    x = K.placeholder((2, 5))
    with caplog.at_level(logging.INFO, "tensorc"):
        K.function([x], [K.tanh(x) * 17.25])([np.ones((2, 5))])
    assert "compiled" in caplog.text
