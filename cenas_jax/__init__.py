"""cenas_jax: carbon-efficient neural architecture search as one compiled JAX program."""

import os

__version__ = "0.1.0"

# XLA's CPU scheduler for concurrent operations can lose a wake-up in nested loops and wait for ever (seen with jaxlib
# 0.10.2 in a vmapped search; the same program never hung without it, and is no slower). It is read when the first
# computation starts, so importing this package before that is enough; a flag that you set yourself is left alone.
_SCHEDULER = "xla_cpu_enable_concurrency_optimized_scheduler"
if _SCHEDULER not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{_SCHEDULER}=false".strip()
