"""Decoding: the greedy path, the search against the enumeration of all alignments, results of unknown length."""

import itertools

import numpy as np
import pytest
from test_ctc import EPSILON, by_enumeration, collapsed, column, normalised, probabilities

from tensorc import backend as K
from tensorc.errors import ArgumentError, IndexRangeError, ShapeError
from tensorc.runtime.threads import num_threads, set_num_threads

LENGTHS = np.array([5, 4, 0], "int32")


@pytest.fixture(autouse=True)
def _restore():
    before = K.floatx()
    yield
    K.set_floatx(before)


def decoded(p, lengths=LENGTHS, **kwargs):
    """The sequences as tuples, path after path, and the logarithms of probabilities."""
    x = K.placeholder(p.shape, dtype=str(p.dtype))
    found, scores = K.ctc_decode(x, lengths, **kwargs)
    *paths, scores = K.function([x], [*found, scores])([p])
    for path in paths:
        assert path.dtype == "int64"
        assert path.flags.c_contiguous
        assert path.shape[1] == (path >= 0).sum(1).max(initial=0)
        for row in path:
            assert (row[row.argmin():] == -1).all() or (row >= 0).all()
    return [[tuple(row[row >= 0].tolist()) for row in path] for path in paths], scores


def exact(row, steps, merge=False):
    """All label sequences with the logarithms of their probabilities, the most probable first."""
    found = by_enumeration(row.astype("float64"), steps)
    ranked = sorted(found.items(), key=lambda item: -item[1])
    return [(tuple(c for c, _ in itertools.groupby(s)) if merge else s, np.log(p)) for s, p in ranked]


def test_greedy_takes_the_best_class_of_each_step():
    p = probabilities(3, 5, 4, seed=3)
    p[0, :, :] = 0.1
    p[0, range(5), [1, 1, 3, 1, 0]] = 0.7
    (got,), scores = decoded(p)
    best = p.argmax(-1)
    assert got == [collapsed(row[:n].tolist(), 3) for row, n in zip(best, LENGTHS, strict=True)]
    assert got[0] == (1, 1, 0)
    want = [-np.log(row[:n].max(-1) + EPSILON).sum() for row, n in zip(p, LENGTHS, strict=True)]
    np.testing.assert_allclose(scores[:, 0], want, rtol=1e-12)
    assert scores.shape == (3, 1)


@pytest.mark.parametrize(("dtype", "digits"), [("float32", 1e-5), ("float64", 1e-9)])
def test_a_wide_search_is_exact(dtype, digits):
    p = probabilities(3, 5, 4, seed=5, dtype=dtype)
    got, scores = decoded(p, greedy=False, beam_width=400, top_paths=4)
    for b, steps in enumerate(LENGTHS):
        want = exact(p[b], steps)[:4]
        assert [path[b] for path in got][:len(want)] == [labels for labels, _ in want]
        np.testing.assert_allclose(scores[b][:len(want)], [s for _, s in want], rtol=digits)
    assert scores.shape == (3, 4)
    assert (scores[2, 1:] == -np.inf).all()       # of no steps there is one sequence, the empty one


def test_merging_repeats_in_what_is_given():
    p = probabilities(3, 5, 3, seed=8)
    plain, scores = decoded(p, greedy=False, beam_width=200, top_paths=6)
    merged, same = decoded(p, greedy=False, beam_width=200, top_paths=6, merge_repeated=True)
    assert plain != merged
    assert merged == [[tuple(c for c, _ in itertools.groupby(s)) for s in path] for path in plain]
    np.testing.assert_array_equal(scores, same)


def searched(p, width):
    """The search over prefixes with tables of dictionaries, the best sequence."""
    rows = np.log(normalised(p))
    beam = {(): (0.0, -np.inf)}
    for row in rows:
        new = {}

        def give(s, blank, label, new=new):
            old = new.get(s, (-np.inf, -np.inf))
            new[s] = np.logaddexp(old[0], blank), np.logaddexp(old[1], label)

        for s, (blank, label) in beam.items():
            give(s, np.logaddexp(blank, label) + row[-1], label + row[s[-1]] if s else -np.inf)
            for c, step in enumerate(row[:-1]):
                give((*s, c), -np.inf, (blank if s[-1:] == (c,) else np.logaddexp(blank, label)) + step)
        ranked = sorted(new.items(), key=lambda item: -np.logaddexp(*item[1]))
        beam = dict(ranked[:width])
    s, masses = next(iter(beam.items()))
    return s, np.logaddexp(*masses)


@pytest.mark.parametrize("width", [1, 2, 3, 8, 25])
def test_a_narrow_search_keeps_the_best_prefixes(width):
    p = np.random.default_rng(width).dirichlet(np.full(5, 0.4), (20, 12))
    (got,), scores = decoded(p, np.full(20, 12), greedy=False, beam_width=width)
    for row, labels, score in zip(p, got, scores[:, 0], strict=True):
        want, mass = searched(row, width)
        assert labels == want
        np.testing.assert_allclose(score, mass, rtol=1e-9)


@pytest.mark.parametrize("form", ["lists", "padded"])
def test_a_dictionary_restricts_the_search(form):
    words = [(0, 1), (0, 1, 2), (2,), (1, 1)]
    if form == "lists":
        given = {"dict_values": [list(w) for w in words]}
    else:
        given = {"dict_values": np.array([[*w, *[9] * (3 - len(w))] for w in words]),
                 "dict_seq_lens": [len(w) for w in words]}
    p = probabilities(3, 5, 4, seed=5)
    got, scores = decoded(p, greedy=False, beam_width=50, top_paths=3, **given)
    for b, steps in enumerate(LENGTHS):
        want = [(s, mass) for s, mass in exact(p[b], steps) if s in words][:3]
        assert [path[b] for path in got][:len(want)] == [s for s, _ in want]
        np.testing.assert_allclose(scores[b][:len(want)], [mass for _, mass in want], rtol=1e-9)
    assert (scores[2] == -np.inf).all()            # no steps, and the empty word is none


def test_sizes_are_known_at_the_call_only():
    p, lengths = K.placeholder((None, None, None)), K.placeholder((None,), dtype="int32")
    greedy, best = K.ctc_decode(p, lengths), K.ctc_decode(p, lengths, greedy=False, beam_width=30)
    f = K.function([p, lengths], [greedy[0][0], best[0][0], best[1]])
    assert K.int_shape(greedy[0][0]) == (None, None)
    for batch, steps, classes in ((2, 4, 3), (3, 3, 2), (1, 1, 1), (0, 4, 3), (2, 0, 3)):
        values = probabilities(batch, steps, classes, dtype="float32")
        path, searched_path, scores = f([values, np.full(batch, steps, "int32")])
        assert path.shape[0] == searched_path.shape[0] == len(scores) == batch
        for row, labels, score in zip(values, searched_path, scores[:, 0], strict=True):
            want, mass = exact(row, steps)[0]
            assert tuple(labels[labels >= 0].tolist()) == want
            np.testing.assert_allclose(score, mass, rtol=1e-4, atol=1e-6)
    assert f.compiled.compilations == 1


def test_bits_do_not_depend_on_threads():
    p = probabilities(7, 20, 6, dtype="float32")
    before, found = num_threads(), set()
    for threads in (1, 2, 3):
        set_num_threads(threads)
        x = K.placeholder(p.shape)
        paths, scores = K.ctc_decode(x, np.full(7, 20), greedy=False, beam_width=9, top_paths=3)
        found.add(b"".join(r.tobytes() for r in K.function([x], [*paths, scores])([p])))
    set_num_threads(before)
    assert len(found) == 1


def test_a_length_outside_is_refused():
    for greedy in (True, False):
        with pytest.raises(IndexRangeError, match=r"K\.ctc_decode: input_length 6 at \[1\] is outside 0 … 5"):
            decoded(probabilities(2, 5, 3), np.array([5, 6]), greedy=greedy)


def test_arguments_that_do_not_fit_are_refused():
    p = K.placeholder((2, 5, 3))
    with pytest.raises(ArgumentError, match="top_paths is 4 and beam_width 3"):
        K.ctc_decode(p, [5, 5], greedy=False, beam_width=3, top_paths=4)
    with pytest.raises(ArgumentError, match=r"labels that are not 0 … classes - 2"):
        K.ctc_decode(p, [5, 5], greedy=False, dict_values=[[0, 2]])
    with pytest.raises(ArgumentError, match="dict_seq_lens holds a length for each row"):
        K.ctc_decode(p, [5, 5], greedy=False, dict_values=[[0, 1]], dict_seq_lens=[3])
    with pytest.raises(ArgumentError, match="dict_values, which are missing"):
        K.ctc_decode(p, [5, 5], greedy=False, dict_seq_lens=[3])
    with pytest.raises(ShapeError, match=r"y_pred is \(batch, steps, classes\)"):
        K.ctc_decode(K.placeholder((5, 3)), [5])


# Results whose length only a run can tell.

def test_such_results_are_outputs_beside_others():
    p = K.placeholder((2, 5, 3))
    w = K.variable(np.zeros(()))
    (path,), scores = K.ctc_decode(p, [5, 5])
    f = K.function([p], [scores, path, K.sum(p), K.identity(path)], updates=[K.update_add(w, K.sum(scores))])
    values = probabilities(2, 5, 3, dtype="float32")
    first, a, total, b = f([values])
    np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(total, 10, rtol=1e-6)
    np.testing.assert_allclose(K.get_value(w), first.sum(), rtol=1e-6)
    assert K.eval(K.ctc_decode(K.constant(values), [5, 5])[0][0]).tolist() == a.tolist()


@pytest.mark.parametrize("use", [
    lambda path: K.cast(path, "float32"), lambda path: K.shape(path)[1], K.sum,
    lambda path: K.equal(path, K.placeholder((2, None), dtype="int64", name="other")),
    lambda path: K.concatenate([path, path]), lambda path: K.reshape(path, (-1,)),
])
def test_nothing_is_computed_from_them(use):
    p = K.placeholder((2, 5, 3))
    (path,), _ = K.ctc_decode(p, [5, 5])
    with pytest.raises(ArgumentError, match="known only when it is computed") as error:
        K.function([p], [use(path)])
    assert "test_ctc_decode.py" in str(error.value)


def test_no_update_takes_them():
    p = K.placeholder((2, 5, 3))
    (path,), _ = K.ctc_decode(p, [5, 5])
    w = K.variable(np.zeros((2, 5)), dtype="int64")
    with pytest.raises((ArgumentError, ShapeError)):
        K.function([p], [], updates=[(w, path)])


def test_a_column_of_lengths_serves_too():
    p = probabilities(3, 5, 4)
    assert decoded(p, column(*LENGTHS))[0] == decoded(p)[0]
