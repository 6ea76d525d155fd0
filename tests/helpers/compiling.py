"""How tests compile, where conftest's choice for all of them is not the best."""

import functools

import jax

# Convolutions under branches compile in a third of the time with the emitters that users have.
jit_convolutions = functools.partial(jax.jit, compiler_options={"xla_cpu_use_fusion_emitters": True})
