"""Plain data of every pickle protocol is read; whatever else a pickle holds is refused before it runs."""

import collections
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from cenas_jax.benchmarks.unpickling import load_plain_pickle

PATH = Path("folder/file.pickle")
PLAIN = {
    "numbers": [1, 2.5, True, None, 3 + 4j],
    "array": np.arange(6, dtype=np.float32).reshape(2, 3),
    "scalar": np.float64(1.5),
    "strings": np.array(["a", None], dtype=object),
    ("cifar10", 777): collections.OrderedDict(a={1, 2}, b=frozenset({3}), c=b"\xff\x00"),
}


class Hostile:
    """Calls `function(*arguments)` when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class Custom:
    pass


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_of_every_protocol(protocol):
    content = pickle.dumps(PLAIN, protocol=protocol)
    for name in (b"numpy._core", b"numpy.core"):  # files written with NumPy 2 and with NumPy 1
        renamed = content.replace(b"numpy._core", name) if protocol < 4 else content
        read = load_plain_pickle(renamed, PATH)
        np.testing.assert_array_equal(read["array"], PLAIN["array"])
        assert read["scalar"] == 1.5 and read["strings"].tolist() == ["a", None]
        assert read["numbers"] == PLAIN["numbers"]
        assert read[("cifar10", 777)] == PLAIN[("cifar10", 777)]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    ("content", "name"),
    [
        (lambda marker: Hostile(os.system, f"touch {marker}"), "posix.system"),
        (lambda marker: Hostile(eval, f"open({str(marker)!r}, 'w')"), "eval"),
        (lambda marker: [1.0, {"a": Hostile(exec, f"open({str(marker)!r}, 'w')")}], "exec"),
        (lambda marker: np.array([1.0, Custom()], dtype=object), "(test_unpickling.Custom|copy_reg._reconstructor)"),
        (lambda marker: Hostile(getattr, "a", "upper"), "getattr"),
        (lambda marker: Hostile(__import__, "antigravity"), "__import__"),
        (lambda marker: Hostile(open, str(marker), "w"), "open"),
        (lambda marker: Hostile(np.load, str(marker)), "load"),
        (lambda marker: Hostile(pickle.loads, pickle.dumps(Hostile(os.getcwd))), "loads"),
        (lambda marker: Path(marker), "Path"),
    ],
)
def test_hostile_pickles_are_refused(protocol, content, name, tmp_path):
    marker = tmp_path / "marker"
    with pytest.raises(ValueError, match=f"folder/file.pickle: refused.*{name}") as error:
        load_plain_pickle(pickle.dumps(content(marker), protocol=protocol), PATH)
    assert "\n" not in str(error.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        pickle.dumps(PLAIN)[:-20],
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"c_codecs\nencode\n(Vx\nVrot13\ntR.",  # another codec than latin1
        b"Pnowhere\n.",  # a persistent id
        b"\x82\x01.",  # an extension code
        b"cnumpy\nndarray\n((I100000000000\nI100000\nttR.",  # more memory than there is
    ],
)
def test_damaged_pickles_are_refused(content):
    with pytest.raises(ValueError, match="folder/file.pickle: refused") as error:
        load_plain_pickle(content, PATH)
    assert "\n" not in str(error.value)
