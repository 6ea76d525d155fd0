"""cenas_jax: carbon-efficient neural architecture search as one compiled JAX program."""

import os

__version__ = "0.1.0"

# jaxlib's batched LAPACK kernels (seen with 0.10.2: Cholesky, QR) wait on XLA's thread pool from within one of its own
# threads. Two of them at once can hold every thread and wait for ever, which XLA's scheduler for concurrent operations
# brings about in a vmapped search. Without it there is one at a time on a device, at no loss of speed. XLA reads the
# flag when the first computation starts: import this package before that. A flag that you set yourself is left alone.
# Several CPU devices need a pool with more threads than devices as well: set NPROC to twice their number.
_SCHEDULER = "xla_cpu_enable_concurrency_optimized_scheduler"
if _SCHEDULER not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{_SCHEDULER}=false".strip()
