"""Soft-margin support vector machines under `jit` and `vmap`: scikit-learn's SVC problem, solved by an interior point.

LaMOO needs many small SVMs (tens to thousands of samples, six to a few hundred dimensions) inside a compiled loop.
Every kernel is turned into an explicit feature map of a fixed rank, and one primal-dual interior-point method solves

    min 1/2 |w|^2 + C sum_i xi_i    with    y_i (w . phi(x_i) + b) >= 1 - xi_i,  xi_i >= 0

in float32 with a fixed number of steps (8 give the signs of libsvm on 99.9 % of NAS-Bench-201). A step costs one
weighted Gram matrix of the features and one Cholesky factorisation. Warm starts were tried and lost: an interior-point
method that starts near the old boundary needs more steps than one that starts in the centre.

Sources: Cortes & Vapnik 1995 (SVM); Mehrotra 1992 (predictor-corrector); Fine & Scheinberg 2001 (low-rank kernels).
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

MAX_MONOMIALS = 512


@dataclass(frozen=True)
class SVMConfig:
    """Kernel and solver of the partitions. Defaults as published for LaMOO (poly of degree 4, gamma scale, C 1)."""

    kernel: Literal["poly", "rbf", "linear"] = "poly"
    degree: int = 4
    """Degree of `poly`, whose kernel is `(gamma x . x')^degree` (no constant term)."""
    penalty: float = 1.0
    """C: the weight of a violated margin."""
    rank: int = 512
    """Most landmarks of the Nystroem map of `rbf`; exact for no more training points than that."""
    steps: int = 8
    """Interior-point steps."""

    def __post_init__(self):
        if self.degree < 1 or self.penalty <= 0 or self.rank < 1 or self.steps < 1:
            raise ValueError(f"SVMConfig: degree, penalty, rank and steps must be positive, got {self}")


class Landmarks(NamedTuple):
    """The points that a kernel's columns stand for; empty (`r = 0`) where the kernel has columns of its own."""

    points: Float[Array, "r f"]
    gamma: Float[Array, ""]


class Kernel(NamedTuple):
    """A kernel as an explicit feature map: `k(x, x') = scale * phi(x) . phi(x')`.

    `static(x)` needs no data and is computed once for a whole space. `fit(x, valid)` looks at the training points and
    returns the landmarks, a whitening matrix (None: the identity) and the scale. `columns(landmarks, static)` times
    the whitening matrix is `phi`. Rows that are not `valid` change nothing.
    """

    static: Callable[[Float[Array, "n f"]], Float[Array, "n s"]]
    fit: Callable[
        [Float[Array, "n f"], Bool[Array, " n"]], tuple[Landmarks, Float[Array, "r r"] | None, Float[Array, ""]]
    ]
    columns: Callable[[Landmarks, Float[Array, "n s"]], Float[Array, "n r"]]


class SVM(NamedTuple):
    """A fitted machine: `decision = columns @ weights + bias`."""

    weights: Float[Array, "*batch r"]
    bias: Float[Array, "*batch"]
    landmarks: Landmarks


def gamma_scale(x: Float[Array, "n f"], valid: Bool[Array, " n"]) -> Float[Array, ""]:
    """scikit-learn's `gamma="scale"`: `1 / (f * variance of all entries of the valid rows)`, 1 where that is 0."""
    weight = valid.astype(x.dtype)[:, None]
    entries = jnp.maximum(weight.sum() * x.shape[1], 1)
    mean = (weight * x).sum() / entries
    variance = (weight * (x - mean) ** 2).sum() / entries
    return jnp.where(variance > 0, 1 / (x.shape[1] * jnp.where(variance > 0, variance, 1)), 1.0)


def _no_landmarks(dtype) -> Landmarks:
    return Landmarks(jnp.zeros((0, 0), dtype), jnp.zeros((), dtype))


def linear_kernel() -> Kernel:
    """`k(x, x') = x . x'`."""
    return Kernel(
        static=lambda x: x,
        fit=lambda x, valid: (_no_landmarks(x.dtype), None, jnp.ones((), x.dtype)),
        columns=lambda landmarks, static: static,
    )


def polynomial_kernel(degree: int, num_features: int) -> Kernel:
    """`k(x, x') = (gamma x . x')^degree`, exactly, by its `C(f + degree - 1, degree)` monomials.

    Raises `ValueError` where that exceeds 512 (many features): take `rbf` there.
    """
    count = math.comb(num_features + degree - 1, degree)
    if count > MAX_MONOMIALS:
        raise ValueError(
            f"a poly kernel of degree {degree} on {num_features} features has {count} monomials, more than "
            f"{MAX_MONOMIALS}: use kernel='rbf' or a lower degree"
        )
    factors = np.array(list(itertools.combinations_with_replacement(range(num_features), degree)))
    multiplicity = [math.factorial(degree) / math.prod(map(math.factorial, np.bincount(row))) for row in factors]

    def static(x):
        return jnp.prod(x[:, factors], axis=-1) * jnp.sqrt(jnp.asarray(multiplicity, x.dtype))[None, :]

    return Kernel(
        static=static,
        fit=lambda x, valid: (_no_landmarks(x.dtype), None, gamma_scale(x, valid) ** degree),
        columns=lambda landmarks, static_rows: static_rows,
    )


def rbf_kernel(rank: int) -> Kernel:
    """`k(x, x') = exp(-gamma |x - x'|^2)` through a Nystroem map on at most `rank` evenly spaced training points.

    Exact (up to a jitter of 1e-6) where there are no more than `rank` valid points; an approximation beyond.
    """

    def kernel(x, z, gamma):
        distance = (x**2).sum(-1)[:, None] + (z**2).sum(-1)[None, :] - 2 * x @ z.T
        return jnp.exp(-gamma * jnp.maximum(distance, 0))

    def fit(x, valid):
        gamma = gamma_scale(x, valid)
        size = min(rank, x.shape[0])
        count = valid.sum()
        valid_first = jnp.argsort(~valid, stable=True)
        used = jnp.arange(size) < count
        spread = jnp.where(count > size, jnp.arange(size) * count // size, jnp.arange(size))
        points = x[valid_first[spread]]
        both = used[:, None] & used[None, :]
        gram = jnp.where(both, kernel(points, points, gamma), 0) + jnp.diag(jnp.where(used, 1e-6, 1.0).astype(x.dtype))
        inverse = jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(gram), jnp.eye(size, dtype=x.dtype), lower=True)
        return Landmarks(points, gamma), jnp.where(both, inverse, 0).T, jnp.ones((), x.dtype)

    def columns(landmarks, static_rows):
        return kernel(static_rows, landmarks.points, landmarks.gamma)

    return Kernel(static=lambda x: x, fit=fit, columns=columns)


def make_kernel(config: SVMConfig, num_features: int) -> Kernel:
    """The kernel that `config` names, for `num_features` input features."""
    if config.kernel == "poly":
        return polynomial_kernel(config.degree, num_features)
    return rbf_kernel(config.rank) if config.kernel == "rbf" else linear_kernel()


def svm_fit(
    kernel: Kernel,
    x: Float[Array, "n f"],
    static: Float[Array, "n s"],
    good: Bool[Array, " n"],
    valid: Bool[Array, " n"],
    config: SVMConfig,
) -> tuple[SVM, Float[Array, " n"]]:
    """Fits the machine that separates `good` rows (positive decisions) from the others.

    `static = kernel.static(x)`. Rows that are not `valid` have no influence. With one class only, the decision has
    that class's sign everywhere. Returns the machine and the dual variables `alpha[n]` in `[0, C]`, 0 where invalid.
    """
    landmarks, whitening, scale = kernel.fit(x, valid)
    columns = kernel.columns(landmarks, static)
    features = columns if whitening is None else columns @ whitening
    if features.shape[1] > features.shape[0]:  # fewer rows than dimensions: the rows' span is all that matters
        basis, coordinates = jnp.linalg.qr(jnp.where(valid[:, None], features, 0).T)
        weights, bias, alpha = _interior_point(coordinates.T, good, valid, scale, config)
        weights = basis @ weights
    else:
        weights, bias, alpha = _interior_point(features, good, valid, scale, config)
    return SVM(weights if whitening is None else whitening @ weights, bias, landmarks), alpha


def svm_pad(machine: SVM, rank: int) -> SVM:
    """The same machine with `rank` landmarks, the added ones without weight; without landmarks it stays as it is."""
    added = rank - machine.landmarks.points.shape[0]
    if machine.landmarks.points.size == 0 or added <= 0:
        return machine
    points = jnp.pad(machine.landmarks.points, ((0, added), (0, 0)))
    return SVM(jnp.pad(machine.weights, (0, added)), machine.bias, machine.landmarks._replace(points=points))


def svm_decision(kernel: Kernel, machine: SVM, static: Float[Array, "n s"]) -> Float[Array, " n"]:
    """`w . phi(x) + b` of rows given by their `static` features; positive = good."""
    return kernel.columns(machine.landmarks, static) @ machine.weights + machine.bias


class _Iterate(NamedTuple):
    """Primal `weights` (bias last), slacks of both inequalities, and the dual `alpha`."""

    weights: Float[Array, " r"]
    surplus: Float[Array, " n"]  # y f(x) - 1 + violation >= 0, complementary to alpha
    violation: Float[Array, " n"]  # xi >= 0, complementary to C - alpha
    alpha: Float[Array, " n"]


def _interior_point(features, good, valid, scale, config: SVMConfig):
    """Mehrotra's predictor-corrector on the primal-dual system, reduced to one `(r + 1)`-square normal matrix."""
    dtype = features.dtype
    labels = jnp.where(good, 1.0, -1.0).astype(dtype)
    count = jnp.maximum(valid.sum(), 1)
    # Features of mean square norm 1 keep float32 accurate; the penalty is scaled so that the problem is the same.
    norm = jnp.sqrt(jnp.maximum((jnp.where(valid[:, None], features, 0) ** 2).sum() / count, 1e-30))
    penalty = config.penalty * scale * norm**2
    rows = jnp.concatenate([features / norm, jnp.ones_like(labels)[:, None]], axis=1)
    rows = jnp.where(valid[:, None], rows * labels[:, None], 0)  # an invalid row has no margin and no pull
    ridge = jnp.ones(rows.shape[1], dtype).at[-1].set(0.0)
    mask = valid.astype(dtype)
    tiny = penalty * 1e-7

    def step(iterate: _Iterate, _):
        weights, surplus, violation, alpha = iterate
        slack_dual = penalty - alpha
        primal_residual = (1 - rows @ weights - violation + surplus) * mask
        dual_residual = ridge * weights - alpha @ rows
        gap = ((alpha * surplus + slack_dual * violation) * mask).sum() / (2 * count)
        curvature = mask / (surplus / alpha + violation / slack_dual)
        normal = (rows * curvature[:, None]).T @ rows
        normal = normal + jnp.diag(ridge + 1e-6 * jnp.diag(normal) + 1e-12)
        factor = jnp.linalg.cholesky(normal)

        def direction(target_surplus, target_violation):
            pull = primal_residual - target_violation / slack_dual + target_surplus / alpha
            step_weights = jax.scipy.linalg.cho_solve((factor, True), (curvature * pull) @ rows - dual_residual)
            step_alpha = curvature * (pull - rows @ step_weights)
            step_surplus = (target_surplus - surplus * step_alpha) / alpha
            step_violation = (target_violation + violation * step_alpha) / slack_dual
            return step_weights, step_surplus, step_violation, step_alpha

        def longest(*pairs):  # the largest step in (0, 1] that keeps every value non-negative
            ratios = [
                jnp.where((change < 0) & valid, -value / jnp.minimum(change, -1e-30), jnp.inf).min()
                for value, change in pairs
            ]
            return jnp.minimum(jnp.stack(ratios).min(), 1.0)

        _, d_surplus, d_violation, d_alpha = direction(-alpha * surplus, -slack_dual * violation)
        primal = longest((surplus, d_surplus), (violation, d_violation))
        dual = longest((alpha, d_alpha), (slack_dual, -d_alpha))
        after = (alpha + dual * d_alpha) * (surplus + primal * d_surplus)
        after = after + (slack_dual - dual * d_alpha) * (violation + primal * d_violation)
        centring = ((after * mask).sum() / (2 * count) / jnp.maximum(gap, 1e-30)) ** 3 * gap
        d_weights, d_surplus, d_violation, d_alpha = direction(
            centring - alpha * surplus - d_alpha * d_surplus,
            centring - slack_dual * violation + d_alpha * d_violation,
        )
        primal = jnp.minimum(0.99 * longest((surplus, d_surplus), (violation, d_violation)), 1.0)
        dual = jnp.minimum(0.99 * longest((alpha, d_alpha), (slack_dual, -d_alpha)), 1.0)
        new = _Iterate(
            weights + primal * d_weights,
            jnp.maximum(surplus + primal * d_surplus, 1e-12),
            jnp.maximum(violation + primal * d_violation, 1e-12),
            jnp.clip(alpha + dual * d_alpha, tiny, penalty - tiny),
        )
        # Float32 breaks down once the gap is negligible: a solved problem stays as it is.
        going_on = jnp.isfinite(new.weights).all() & (2 * count * gap > 1e-4 * (alpha * mask).sum())
        return jax.tree.map(lambda after, before: jnp.where(going_on, after, before), new, iterate), None

    # On the central path of weights 0 at a wide gap, mu = 2 C: one or two steps fewer than from C / 2.
    ones = jnp.ones_like(labels)
    surplus = (3 + math.sqrt(17)) / 2
    alpha = ones * penalty * 2 / surplus
    start = _Iterate(jnp.zeros(rows.shape[1], dtype), surplus * ones, (surplus + 1) * ones, alpha)
    final, _ = jax.lax.scan(step, start, length=config.steps)
    return final.weights[:-1] / norm, final.weights[-1], final.alpha * mask / (scale * norm**2)
