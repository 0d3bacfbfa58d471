"""The examples run as a user would run them, small.  What digits.py reaches in full is checked by .ci/run."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


def run_example(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / name), *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "HOME": str(cwd), "PATH": ""},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def test_digits_learns_and_draws(tmp_path: Path) -> None:
    done = run_example("digits.py", "--seeds", "1", "--epochs", "12", "--out", "curve.png", cwd=tmp_path)

    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stdout + done.stderr
    accuracy = re.search(r"^median accuracy ([\d.]+)%", done.stdout, re.MULTILINE)
    assert accuracy is not None
    assert float(accuracy[1]) >= 97
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_operations_of_ones_own_learn(tmp_path: Path) -> None:
    done = run_example("own_operations.py", cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    accuracy = re.search(r"^accuracy ([\d.]+)%", done.stdout, re.MULTILINE)
    assert accuracy is not None
    assert float(accuracy[1]) >= 96


def test_the_classifier_of_the_docs_learns(tmp_path: Path) -> None:
    done = run_example("classifier.py", cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    losses = [float(loss) for loss in done.stdout.strip("[]\n").split(", ")]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.6 < 1 < losses[0]


def test_digits_says_when_it_falls_short(tmp_path: Path) -> None:
    done = run_example("digits.py", "--seeds", "1", "--epochs", "1", "--out", "curve.png", cwd=tmp_path)

    assert "Traceback" not in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize(("name", "least"), [("cnn", 98.5), ("resnet", 97)])
def test_networks_of_convolutions_learn_and_draw(name: str, least: float, tmp_path: Path) -> None:
    done = run_example(f"{name}.py", "--out", "picture.png", cwd=tmp_path)

    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stdout + done.stderr
    accuracy = re.search(r"accuracy ([\d.]+)%", done.stdout)
    assert accuracy is not None
    assert float(accuracy[1]) >= least
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_the_autoencoder_knows_more_than_single_pixels(tmp_path: Path) -> None:
    done = run_example("vae.py", "--out", "picture.png", cwd=tmp_path)

    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stdout + done.stderr
    bounds = re.search(r"bound (-[\d.]+) nats, pixels alone (-[\d.]+) nats", done.stdout)
    assert bounds is not None
    assert float(bounds[1]) > float(bounds[2]) + 2
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_shapes_are_what_they_are_called() -> None:
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        from shapes import NAMES, SHAPES, render
    finally:
        sys.path.remove(str(ROOT / "examples"))

    images, kinds = render(300, 24, seed=5)
    again, _ = render(300, 24, seed=5)
    assert (images.shape, images.dtype, kinds.dtype) == ((300, 24, 24, 1), np.float32, np.int32)
    assert np.array_equal(images, again)
    assert set(kinds) == set(range(len(NAMES)))

    y, x = (np.mgrid[-200:200, -200:200] + 0.5) / 100
    area = {name: 16 * np.mean(shape(x, y, 1.0) < 0) for name, shape in zip(NAMES, SHAPES, strict=True)}
    assert area["disc"] == pytest.approx(np.pi * 0.9**2, rel=0.01)
    assert area["ring"] == pytest.approx(np.pi * (1.08**2 - 0.72**2), rel=0.01)
    assert area["square"] == pytest.approx(1.6**2, rel=0.01)
    assert area["triangle"] == pytest.approx(0.75 * np.sqrt(3), rel=0.01)
    assert area["cross"] == pytest.approx(4 * 0.56 - 0.56**2, rel=0.01)
    assert area["star"] == pytest.approx(10 * 0.5 * 1.15 * 0.45 * np.sin(np.pi / 5), rel=0.01)


def test_ctc_reads_strings(tmp_path: Path) -> None:
    done = run_example("ctc.py", "--epochs", "10", cwd=tmp_path)

    assert (done.returncode in (0, 1), done.stderr) == (True, ""), done.stdout + done.stderr
    right = re.search(r"^strings read rightly: ([\d.]+)% on the best path, ([\d.]+)% by the search", done.stdout, re.M)
    assert right is not None
    assert min(map(float, right.groups())) >= 70


def test_the_language_model_knows_more_than_single_characters(tmp_path: Path) -> None:
    done = run_example("lstm.py", cwd=tmp_path)

    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stdout + done.stderr
    told = re.search(r"character: ([\d.]+) in training, ([\d.]+) on the unseen sonnet; single characters ([\d.]+)",
                     done.stdout)
    assert told is not None
    training, unseen, alone = map(float, told.groups())
    assert training < alone - 1.5
    assert unseen < alone - 1
    written = done.stdout[told.end():].strip()
    assert len(written) > 300
    assert set(written) <= set((ROOT / "examples" / "data" / "sonnets.txt").read_text(encoding="utf-8"))


def test_own_pass_fires(tmp_path: Path) -> None:
    done = run_example("own_pass.py", cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    exact, cheap = done.stdout.split("# and with HardSwish")
    assert "sigmoid" in exact
    assert "sigmoid" not in cheap
    assert float(cheap.split()[-1]) == pytest.approx(0.142, abs=0.001)


def test_the_test_of_swish_passes() -> None:
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "."],
                          cwd=ROOT / "examples" / "swish", env={"PYTHONPATH": str(ROOT), "HOME": "/", "PATH": ""},
                          capture_output=True, text=True)
    assert "4 passed" in done.stdout, done.stdout + done.stderr


def test_weights_in_eight_bits_read_as_well(tmp_path: Path) -> None:
    done = run_example("int8.py", "--wide", "64", cwd=tmp_path)

    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stdout + done.stderr
    sizes = [int(size.replace(",", "")) for size in re.findall(r": +([\d,]+) bytes", done.stdout)]
    assert sizes[1] < 0.3 * sizes[0]


def test_clipped_gradients_keep_a_training_on_its_way(tmp_path: Path) -> None:
    done = run_example("clipping.py", "--steps", "300", cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    wild, clipped = (float(share) for share in re.findall(r"([\d.]+)% read rightly", done.stdout))
    assert clipped > 90 > wild


def test_counts_of_operations_follow_the_formula(tmp_path: Path, golden: Callable[[str, str], None]) -> None:
    done = run_example("flops.py", cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    golden("cli/flops.txt", done.stdout)


def test_gradients_are_clipped_by_their_norm_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from clipping import clip_gradients

    from tensorc import backend as K

    slopes = [np.array([3.0, 0.0], "float32"), np.array([[0.0], [4.0]], "float32")]
    for limit in (2.5, 10.0):
        weights = [K.variable(np.ones_like(g)) for g in slopes]
        given = [K.placeholder(g.shape) for g in slopes]
        counter = K.variable(0.0)
        step = K.function(given, [], passes=clip_gradients(limit), updates=[
            *((w, w - 0.5 * g) for w, g in zip(weights, given, strict=True)), (counter, counter + 1)])
        step(slopes)
        for w, g in zip(weights, slopes, strict=True):
            np.testing.assert_allclose(K.get_value(w), 1 - 0.5 * min(1, limit / 5) * g, rtol=1e-6)
        step([np.zeros_like(g) for g in slopes])
        assert np.isfinite(K.get_value(weights[0])).all()
        assert K.get_value(counter) == 2


def test_int8_weights_are_near_what_they_stand_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from int8 import Int8Weights

    from tensorc import backend as K

    values = np.random.default_rng(0).normal(size=(30, 7)).astype("float32")
    values[:, 3] = 0
    w, x = K.variable(values, name="w"), K.placeholder((None, 30), name="x")
    near = K.function([x], [K.dot(x, w)], passes=Int8Weights([w]))
    row = np.random.default_rng(1).normal(size=(5, 30)).astype("float32")
    slack = np.abs(row).sum(axis=1, keepdims=True) * np.abs(values).max(axis=0) / 127 / 2
    assert (np.abs(near([row])[0] - row @ values) <= slack + 1e-5).all()
    assert len(near.compiled.program.assembly.lowered) == 1
