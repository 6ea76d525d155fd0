"""One carbon interval on the evaluation slots: which job runs where, and when a hard budget stops the clock."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def list_schedule(
    remaining_s: Float[Array, " j"], valid: Bool[Array, " j"], slots: int, evaluation_slots: Int[Array, ""]
) -> tuple[Float[Array, " j"], Float[Array, " g"]]:
    """Gives each job, in order, to the evaluation slot that is free first.

    Returns the start of every job (seconds into the interval; jobs that are not `valid`, and all jobs where there is no
    evaluation slot, start at infinity) and the second at which each of the `slots` would run out of work, without an
    end of the interval. Only the first `evaluation_slots` are used. A job never runs on two slots.
    """
    usable = jnp.arange(slots) < evaluation_slots

    def place(free_s, job):
        duration_s, real = job
        slot = jnp.argmin(jnp.where(usable, free_s, jnp.inf))
        runs = real & (evaluation_slots > 0)
        start_s = jnp.where(runs, free_s[slot], jnp.inf)
        return free_s + jnp.where((jnp.arange(slots) == slot) & runs, duration_s, 0), start_s

    busy_s, start_s = jax.lax.scan(place, jnp.zeros(slots, remaining_s.dtype), (remaining_s, valid), unroll=4)
    return start_s, busy_s


def stop_time_s(
    busy_s: Float[Array, " g"],
    busy_power_w: Float[Array, " g"],
    idle_power_w: Float[Array, " g"],
    horizon_s: Float[Array, ""],
    energy_left_kwh: Float[Array, ""],
) -> Float[Array, ""]:
    """The last second, at most `horizon_s`, up to which all slots together use no more than `energy_left_kwh`.

    Slot `g` draws `busy_power_w[g]` until `busy_s[g]` and `idle_power_w[g]` from then on. Energy grows linearly between
    the seconds at which a slot runs out of work, so the answer is exact.
    """
    ends_s = jnp.sort(jnp.minimum(jnp.append(busy_s, horizon_s), horizon_s))
    starts_s = jnp.concatenate([jnp.zeros(1, ends_s.dtype), ends_s[:-1]])
    working = busy_s[None, :] > starts_s[:, None]
    power_w = jnp.where(working, busy_power_w[None, :], idle_power_w[None, :]).sum(axis=1)
    used_kwh = jnp.cumsum(power_w * (ends_s - starts_s)) / 3.6e6
    left_kwh = energy_left_kwh - jnp.concatenate([jnp.zeros(1, ends_s.dtype), used_kwh[:-1]])
    affordable_s = jnp.where(power_w > 0, left_kwh * 3.6e6 / jnp.where(power_w > 0, power_w, 1), jnp.inf)
    cut = (left_kwh < 0) | (affordable_s < ends_s - starts_s)
    first = jnp.argmax(cut)
    stop_s = jnp.clip(starts_s[first] + jnp.maximum(affordable_s[first], 0), 0, ends_s[first])
    return jnp.where(cut.any(), stop_s, horizon_s)  # No sum of parts: what is not cut ends at the horizon to the bit.
