"""Variables of networks of cells, for tests."""

import jax
import jax.numpy as jnp
import numpy as np


def filled(shapes):
    """Variables with scales, shifts and running statistics that are not those of the start, by which images are still
    told apart."""
    random = np.random.default_rng(1)

    def fill(path, leaf):
        fan = np.prod(leaf.shape[-4:-1]) if path[-1].key.startswith("kernel") else 1.0
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(centre + random.standard_normal(leaf.shape) * (2 / fan) ** 0.5 * 0.5, jnp.float32)

    params = jax.tree.map_with_path(fill, shapes["params"])

    def fill_statistics(path, leaf):
        draw = (
            random.standard_normal(leaf.shape) * 0.1
            if path[-1].name == "mean"
            else random.uniform(0.1, 0.3, leaf.shape)
        )
        return jnp.asarray(draw, jnp.float32)

    statistics = jax.tree.map_with_path(fill_statistics, shapes["statistics"])
    return {"params": params, "statistics": statistics}


def unstacked(count: int, collection):
    """Cells of a scan by their own names; `count` is that of all cells."""
    cells, found = [name for name in collection if name.startswith("cell")], dict(collection)
    places = sorted(int(name.split("_")[1]) for name in cells) + [count]
    for place, end in zip(places[:-1], places[1:], strict=True):
        if is_stacked(collection[f"cell_{place}"]):
            for number in range(end - place):
                found[f"cell_{place + number}"] = jax.tree.map(
                    lambda leaf, number=number: leaf[number], collection[f"cell_{place}"]
                )
    return found


def is_stacked(cell) -> bool:
    first = cell["first"]
    return first["kernel_0"].ndim == 5 if "kernel_0" in first else first["running"].mean.ndim == 2
