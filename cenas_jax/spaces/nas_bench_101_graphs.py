"""NAS-Bench-101 (Ying et al., ICML 2019) on the host: names, pruning, and a hash that isomorphic graphs share.

A graph has 7 vertices in order, 0 the input and 6 the output; the others are operations. Codes: 21 entries for the
edges (row by row of the upper triangle, 1 = present), 5 for the operations. NumPy only.
"""

import hashlib

import numpy as np
from jaxtyping import Bool, Int, Integer

VERTICES = 7
INNER = VERTICES - 2
MAX_EDGES = 9
OPERATIONS = ("maxpool3x3", "conv1x1-bn-relu", "conv3x3-bn-relu")
"""Names of the codes 0 .. 2, the benchmark's own, by compute."""
EDGES = tuple((source, target) for source in range(VERTICES) for target in range(source + 1, VERTICES))
"""(source, target) of the first 21 entries."""
INPUT, OUTPUT = "input", "output"


def matrix_of(codes: Integer[np.ndarray, " 26"]) -> Bool[np.ndarray, "7 7"]:
    matrix = np.zeros((VERTICES, VERTICES), bool)
    matrix[tuple(zip(*EDGES, strict=True))] = np.asarray(codes[: len(EDGES)]) == 1
    return matrix


def used_vertices(matrix: Bool[np.ndarray, "v v"]) -> Bool[np.ndarray, " v"]:
    """Those on a path from the input (the first) to the output (the last). None where there is no path."""
    reach = matrix | np.eye(len(matrix), dtype=bool)
    for _ in range(len(matrix)):
        reach = (reach.astype(int) @ reach.astype(int)) > 0
    return reach[0] & reach[:, -1]


def canonical_hash(codes: Integer[np.ndarray, " 26"]) -> str:
    """32 hexadecimal digits: equal for graphs that are isomorphic once what no path uses is pruned.

    Every vertex starts from its degrees and operation and takes in, again and again, what its sources and its targets
    have; the hash is of what all vertices have in the end, sorted (the invariant of Ying, 2019, arXiv:1902.06192,
    which tells all graphs of the benchmark apart; its digests are others). `ValueError` where no path joins input and
    output.
    """
    matrix = matrix_of(codes)
    used = np.flatnonzero(used_vertices(matrix))
    if not len(used):
        raise ValueError(f"codes {np.asarray(codes).tolist()}: no path from the input to the output")
    names = [INPUT, *(OPERATIONS[code] for code in codes[len(EDGES) :]), OUTPUT]
    matrix = matrix[np.ix_(used, used)]
    known = [_digest(str(matrix[:, v].sum()), str(matrix[v].sum()), names[used[v]]) for v in range(len(used))]
    for _ in range(len(used)):
        known = [
            _digest(_sorted(known, matrix[:, vertex]), _sorted(known, matrix[vertex]), known[vertex])
            for vertex in range(len(used))
        ]
    return _digest(*sorted(known))


def _sorted(known: list[str], chosen: Bool[np.ndarray, " v"]) -> str:
    return ",".join(sorted(known[vertex] for vertex in np.flatnonzero(chosen)))


def _digest(*parts: str) -> str:
    return hashlib.blake2b("|".join(parts).encode(), digest_size=16).hexdigest()


def to_string(codes: np.ndarray) -> str:
    """`adjacency|operations` as the benchmark's records have them: 49 digits row by row, and seven names by commas."""
    codes = np.asarray(codes)
    entries = codes.shape == (len(EDGES) + INNER,)
    if not entries or not (np.all((codes >= 0) & (codes < [*[2] * len(EDGES), *[len(OPERATIONS)] * INNER]))):
        raise ValueError(f"NAS-Bench-101 codes are 21 of 0 .. 1 and 5 of 0 .. 2, not {codes}")
    adjacency = "".join(str(int(edge)) for edge in matrix_of(codes).ravel())
    return f"{adjacency}|{','.join([INPUT, *(OPERATIONS[code] for code in codes[len(EDGES) :]), OUTPUT])}"


def from_string(text: str) -> np.ndarray:
    """Codes of `adjacency|operations`, with 2 .. 7 vertices; `ValueError` says what is wrong with a malformed one.

    A graph with fewer vertices gets ones without edges before its output, whose operation is code 0.
    """
    adjacency, _, names = text.partition("|")
    labels = names.split(",")
    vertices = len(labels)
    if not 2 <= vertices <= VERTICES or labels[0] != INPUT or labels[-1] != OUTPUT:
        raise ValueError(
            f"graph {text!r}: give 2 .. {VERTICES} operations after |, from {INPUT} to {OUTPUT}, by commas"
        )
    if len(adjacency) != vertices**2 or set(adjacency) - set("01"):
        raise ValueError(f"graph {text!r}: give {vertices**2} digits 0 or 1 for {vertices} vertices")
    for label in labels[1:-1]:
        if label not in OPERATIONS:
            raise ValueError(f"graph {text!r}: operation {label!r} is none of {', '.join(OPERATIONS)}")
    small = np.asarray([int(digit) for digit in adjacency], bool).reshape(vertices, vertices)
    if np.tril(small).any():
        raise ValueError(f"graph {text!r}: an edge must lead from an earlier to a later vertex")
    place = [*range(vertices - 1), VERTICES - 1]
    matrix = np.zeros((VERTICES, VERTICES), bool)
    matrix[np.ix_(place, place)] = small
    operations = [OPERATIONS.index(label) for label in labels[1:-1]] + [0] * (VERTICES - vertices)
    codes = np.asarray([*(int(matrix[edge]) for edge in EDGES), *operations], np.int32)
    problem = _problem(codes)
    if problem:
        raise ValueError(f"graph {text!r}: {problem}")
    return codes


def _problem(codes: Int[np.ndarray, " 26"]) -> str:
    matrix = matrix_of(codes)
    used = used_vertices(matrix)
    if not used.any():
        return "no path from the input to the output"
    edges = int(matrix[np.ix_(used, used)].sum())
    return f"{edges} edges are in use, {MAX_EDGES} at most may be" if edges > MAX_EDGES else ""
