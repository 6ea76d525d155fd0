"""cenas_jax: carbon-efficient neural architecture search as one compiled JAX program."""

__version__ = "0.1.0"
