"""Carbon: intensity traces, power, budgets and the ledger.

What is re-exported here needs no jax, so that bad input is refused at once. The traced halves are imported from
their own modules: `carbon.ledger`, `carbon.synthetic`.
"""

from cenas_jax.carbon.budget import Budget, BudgetParams
from cenas_jax.carbon.catalogue import KNOWN_TRACES, load_trace
from cenas_jax.carbon.power import PowerModel, PowerParams
from cenas_jax.carbon.readers import read_compact_traces, read_trace
from cenas_jax.carbon.trace import IntensityTrace, fill_gaps, from_arrays, require_complete

__all__ = [
    "KNOWN_TRACES",
    "Budget",
    "BudgetParams",
    "IntensityTrace",
    "PowerModel",
    "PowerParams",
    "fill_gaps",
    "from_arrays",
    "load_trace",
    "read_compact_traces",
    "read_trace",
    "require_complete",
]
