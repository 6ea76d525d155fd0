"""NAS-Bench-201 (Dong & Yang, ICLR 2020) as a search space: six edges, five operations, canonical NATS order."""

import functools

from cenas_jax.spaces import nas_bench_201_cells as cells
from cenas_jax.spaces.base import SearchSpace, tabular_space


@functools.cache
def nas_bench_201() -> SearchSpace:
    """The 15,625 cells of NAS-Bench-201, the topology space of NATS-Bench; 6,466 isomorphism classes.

    Codes: none 0, skip_connect 1, nor_conv_1x1 2, nor_conv_3x3 3, avg_pool_3x3 4. Entries: the edges 0>1, 0>2, 1>2,
    0>3, 1>3, 2>3. `features` ranks the operations by compute: none, skip, pooling, 1x1, 3x3. Names are the official
    strings. Built once and shared.
    """
    num_edges = len(cells.EDGES)
    return tabular_space(
        "nas-bench-201",
        (cells.OPERATIONS,) * num_edges,
        ordinal=(tuple(float(rank) for rank in cells.COMPUTE_RANK),) * num_edges,
        order=cells.canonical_order(),
        isomorph=cells.isomorphism_classes(),
        to_string=cells.to_string,
        from_string=cells.from_string,
    )
