"""What every test file shares: golden texts, the option that renews them, and Keras."""

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import ml_dtypes  # noqa: F401  (has NumPy know the name bfloat16)
import pytest

os.environ["TENSORC_CACHE"] = "0"  # what earlier runs compiled shall not pass for what this one does

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the texts under tests/golden anew instead of comparing with them",
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """A function `golden(name, text)` that holds `text` against the file tests/golden/`name`.

    `name` is a path such as "passes/softmax.txt".  A difference, or a file that is
    missing, fails the test and shows the lines; `pytest --update-golden` writes the
    file instead, and the reviewer reads the change in the diff of the commit.

    Names in use begin anew, so that the text does not depend on which tests ran before.
    """
    if "tensorc.backend" in sys.modules:
        sys.modules["tensorc.backend"].clear_session()
    update = request.config.getoption("--update-golden")

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        text = text.rstrip("\n") + "\n"

        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return

        expected = path.read_text(encoding="utf-8") if path.is_file() else ""
        if text == expected:
            return

        difference = difflib.unified_diff(
            expected.splitlines(), text.splitlines(), f"tests/golden/{name}", "this run", lineterm=""
        )
        pytest.fail(
            "\n".join([*difference, "", "If the change is meant: pytest --update-golden"]),
            pytrace=False,
        )

    return compare


@pytest.fixture
def registry() -> Iterator[None]:
    """What a test defines of its own is not there for others, such as those that walk all operations."""
    from tensorc.codegen.scalars import SCALARS
    from tensorc.custom.library import operation
    from tensorc.ir.node import OPS

    tables: list[dict[str, object]] = [OPS, SCALARS]  # type: ignore[list-item]
    before = [dict(table) for table in tables]
    yield
    for table, was in zip(tables, before, strict=True):
        table.clear()
        table.update(was)
    operation.cache_clear()


@pytest.fixture(scope="module")
def keras(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The real Keras, imported once, with its settings and the environment put back afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "tensorc.keras")
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        yield importlib.import_module("keras")


@pytest.fixture
def float64(keras: ModuleType) -> Iterator[None]:
    """Keras computes in float64."""
    keras.backend.set_floatx("float64")
    yield
    keras.backend.set_floatx("float32")
