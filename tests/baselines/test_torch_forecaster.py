"""The PyTorch rival is the same network: forward passes agree with copied weights. Skips without torch."""

import jax
import numpy as np
import pytest

from cenas_jax.nets import CarbonTransformerConfig, carbon_transformer

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("layers", [1, 2])
def test_forward_agrees_with_copied_weights(layers):
    from baselines.torch_forecaster import TorchCarbonTransformer, copy_weights

    config = CarbonTransformerConfig(layers=layers)
    network = carbon_transformer(config, 7)
    draw = np.random.default_rng(0)
    history = draw.normal(size=(3, 168, 11)).astype(np.float32)
    horizon = draw.normal(size=(3, 96, 13)).astype(np.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), history[0], horizon[0])
    # Weights of about the size that Flax draws, and no bias or scale that is 0 or 1.
    params = jax.tree.map(lambda leaf: (draw.normal(size=leaf.shape) / leaf.shape[0] ** 0.5).astype(np.float32), shapes)
    model = TorchCarbonTransformer(config, 11, 13, 7, 168 // 24 + 96 // 12).eval()
    copy_weights(model, params)
    with torch.no_grad():
        theirs = model(torch.tensor(history), torch.tensor(horizon)).numpy()
    ours = jax.jit(jax.vmap(network.apply, (None, 0, 0)))(params, history, horizon)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
