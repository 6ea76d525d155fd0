"""Options of `cenas simulate`: one tree of frozen dataclasses, read from the command line or from TOML. Host only.

The defaults here are the only ones. None means "by the data at hand" or "no limit"; `settled` replaces what it can and
refuses what makes no sense, without starting jax.
"""

import difflib
import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from cenas_jax.carbon import KNOWN_TRACES
from cenas_jax.carbon.power import measured
from cenas_jax.carbon.trace import Factor, GapPolicy

POLICIES = ("vanilla", "heuristic", "threshold", "one-shot", "yesterday-greedy", "forecast-greedy")
"""Names of plain policies, beside `fixed-V`."""
LEARNED_POLICIES = ("ce-nas", "ce-nas-continuous")
"""Policies trained by PPO that ship with the package, of discrete and continuous actions.
A file (.npz) of `cenas policy train` is one, too."""
LEARNED_WINDOW_H = 24
"""Hours that a learned policy looks ahead, by yesterday or by the forecast."""
PAPER_START = "2021-07-02T06:00Z"
"""Where the CE-NAS experiments begin on their trace."""
NAS_BENCH_201_OBJECTIVES, NAS_BENCH_201_ESTIMATE = ("c10_test_200", "c10_edgegpu_energy"), "one-shot"
SYNTHETIC_ESTIMATE = "noise-0.5"
MOST_SEEDS, MOST_SLOTS, YEAR_H = 10_000, 1_024, 8_760
MOST_OBJECTIVES = 3
"""The hypervolume within a compiled search is exact up to here."""
ARCHITECTURES, DIFFERENT_ARCHITECTURES = 15_625, 6_466
"""Of NAS-Bench-201, which the synthetic benchmark shares; isomorphs count once among the different."""


# tyro shows the text under a field as its help, line by line: keep each on one line.


@dataclass(frozen=True)
class PolicyOptions:
    policy: tuple[str, ...] = ("vanilla", "heuristic", "one-shot")
    """vanilla, fixed-V (V: 0 to slots), heuristic, threshold, one-shot, yesterday-greedy, forecast-greedy, ce-nas..."""
    threshold: float = 0.5
    """Policy threshold: evaluate below this relative intensity, 0 = lowest to 1 = highest of the window."""
    diminishing: float = 0.5
    """Greedy policies: an evaluation slot is worth 1 - diminishing of the one before it in the hour; 0: as much."""
    seeds: int = 8
    """Searches for each policy; all policies share the seeds."""
    seed: int = 0
    """Root of all random draws of the searches."""


@dataclass(frozen=True)
class LimitOptions:
    hours: int = 48
    """Length of a search, in hours (carbon intervals)."""
    carbon_limit_g: float | None = None
    """Hard limit of each search's emissions, in gCO2eq. None: no limit."""
    energy_limit_kwh: float | None = None
    """Hard limit of each search's energy at the building's meter, in kWh. None: no limit."""
    evaluation_limit: int | None = None
    """Hard limit of each search's evaluations, the initial design included. None: no limit."""


@dataclass(frozen=True)
class GridOptions:
    trace: str | None = None
    """Name (us-cal-ciso, em-de, synthetic-ciso, ...) or CSV file. None: us-cal-ciso with data, else synthetic-ciso."""
    start: str | None = None
    """First hour of the search, UTC if it has no offset. None: 2021-07-02T06:00Z, or a CSV file's first hour."""
    factor: Factor = "lifecycle"
    """Emission factors: life cycle (construction and fuel supply included), or direct (combustion only)."""
    gap_policy: GapPolicy = "error"
    """Missing readings: refuse them, interpolate, or hold the last one."""
    max_gap_h: int = 3
    """Longest gap that may be filled, in hours."""
    timezone: str | None = None
    """CSV file: time zone of its stamps (IANA name). None: UTC, or as the file says."""
    unit: str | None = None
    """CSV file: unit of the intensity (g/kWh, kg/kWh, kg/MWh, t/MWh, lb/MWh). None: as the file says, else g/kWh."""
    column: str | None = None
    """CSV file: header of the intensity column. None: found by its name."""
    zone: str | None = None
    """CSV file: zone to take from a file with several. None: the only one."""
    forecast: Literal["none", "persistence", "yesterday", "transformer", "perfect"] = "none"
    """Next 24 h as policies see them (plain ones do not look): last hour held, last day again, fitted, or the truth."""


@dataclass(frozen=True)
class RecordOptions:
    """What a forecaster reads: a grid with generation, weather, source forecasts, or a trace of intensities alone."""

    grid: Literal["CISO", "DE", "PJM"] | None = None
    """Grid with generation, weather runs and source forecasts, from the data folder. None: a trace."""
    trace: str | None = None
    """Without --grid: name (us-cal-ciso, em-de, synthetic-ciso, ...) or CSV file. None: synthetic-ciso."""
    data: Path | None = None
    """Folder of real data, with carbon/ and forecast/. None: the environment variable CENAS_DATA, if set."""
    factor: Factor = "lifecycle"
    """Emission factors: life cycle (construction and fuel supply included), or direct (combustion only)."""
    timezone: str | None = None
    """CSV file: time zone of its stamps (IANA name). None: UTC, or as the file says."""
    unit: str | None = None
    """CSV file: unit of the intensity (g/kWh, kg/kWh, kg/MWh, t/MWh, lb/MWh). None: as the file says, else g/kWh."""
    column: str | None = None
    """CSV file: header of the intensity column. None: found by its name."""
    zone: str | None = None
    """CSV file: zone to take from a file with several. None: the only one."""


@dataclass(frozen=True)
class BenchmarkOptions:
    data: Path | None = None
    """Folder of real data, with nas/ and carbon/. None: the environment variable CENAS_DATA, if set."""
    benchmark: Literal["nas-bench-201", "synthetic"] | None = None
    """Where results are looked up. None: nas-bench-201 where there is data, else synthetic."""
    objectives: tuple[str, ...] | None = None
    """nas-bench-201: what is optimised, such as c10_test_200 c10_edgegpu_energy. None: these two."""
    estimate: str | None = None
    """Of accuracy: one-shot, few-shot, 12-epochs, zc-PROXY, exact, noise-TAU. None: one-shot; synthetic: noise-0.5."""
    data_seed: int = 0
    """Seed of the synthetic benchmark, the synthetic trace and the noise of estimates."""


@dataclass(frozen=True)
class SearcherOptions:
    searcher: Literal["lamoo", "random"] = "lamoo"
    """LaMOO, or uniform draws from the whole space."""
    choice: Literal["random", "estimate", "corrected"] = "estimate"
    """LaMOO's order of screened candidates: as drawn, by dominance, or by the expected gain of estimates that a GP
    corrects; of these half are drawn in the whole space."""
    kernel: Literal["poly", "rbf", "linear"] = "poly"
    """LaMOO: kernel of the SVMs that bound its region."""


@dataclass(frozen=True)
class ClusterOptions:
    slots: int = 8
    """Devices; each samples or evaluates during an interval of one hour."""
    queue_capacity: int = 32
    """Screened architectures that wait for evaluation."""
    screen_per_interval: int = 512
    """Most candidates drawn in an hour, to be screened by all sampling slots together. With `--choice corrected`
    evaluated architectures without an estimate come before them."""
    initial_design: int = 10
    """Random architectures evaluated first."""
    window_h: int = 24
    """Hours of past intensity that policies compare the present with."""
    capacity: int | None = None
    """Most evaluations of one search. None: 1.5 x what the slots finish at the mean training time, at least 64."""


@dataclass(frozen=True)
class PowerOptions:
    power: Literal["measured", "paper"] = "measured"
    """measured: watts of a GPU by activity, everything charged; paper: 1 kW for an evaluation, all else free."""
    gpu: str | None = None
    """measured: the GPU, such as a100, h100, l4, t4. None: a100."""
    pue: float | None = None
    """measured: energy of the building over energy of its devices, 1.0 or more. None: 1.2."""
    idle_slots: bool = False
    """measured: slots without work stay ours and draw idle power; otherwise they are released for 0 W."""


@dataclass(frozen=True)
class PolicyTrainOptions:
    action: Literal["discrete", "continuous"] = "discrete"
    """discrete: one of 0..slots. continuous: a share of the slots."""
    reward: Literal["budgeted", "paper"] = "budgeted"
    """budgeted: fall of the log-regret under a hard limit. paper: CE-NAS's sum of gain, carbon and work."""
    updates: int = 30
    """Updates by PPO."""
    environments: int = 32
    """Episodes an update, side by side."""
    replicas: int = 4
    """Of these, episodes of the same task, which are compared with each other."""
    learning_rate: float = 1e-3
    """At the start; it falls linearly to 0."""
    entropy: float = 1e-3
    """Weight of the entropy in the loss, at the start; it falls with the learning rate."""
    decay: float = 1.0
    """GAE's lambda. 1: whole returns, which trust no value of what comes after."""
    seed: int = 0
    """Root of all random draws, and of which benchmarks are made."""


@dataclass(frozen=True)
class SimulateConfig:
    """Everything that decides the result of `cenas simulate`."""

    policies: PolicyOptions = field(default_factory=PolicyOptions)
    limits: LimitOptions = field(default_factory=LimitOptions)
    grid: GridOptions = field(default_factory=GridOptions)
    benchmark: BenchmarkOptions = field(default_factory=BenchmarkOptions)
    search: SearcherOptions = field(default_factory=SearcherOptions)
    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    power: PowerOptions = field(default_factory=PowerOptions)


def data_folder(data: Path | None, environ: Mapping[str, str], *, make: bool = False) -> Path | None:
    """`data`, else the folder named by CENAS_DATA, else None; `ValueError` where it is no folder.

    `make`: one that does not exist yet is allowed, as an import will make it.
    """
    if data is None and not environ.get("CENAS_DATA"):
        return None
    named, folder = ("CENAS_DATA", Path(environ["CENAS_DATA"])) if data is None else ("--data", data)
    if not folder.is_dir() and not (make and not folder.exists()):
        raise ValueError(f"{named}: {folder} is not a folder: name the folder that holds nas/ and carbon/")
    return folder.absolute()


def settled(config: SimulateConfig, environ: Mapping[str, str]) -> SimulateConfig:
    """The config with its defaults decided, `start` of a CSV file and `capacity` excepted, which the data decide.

    `ValueError`, one line that names the option and the mend, for values that make no sense together or alone.
    """
    _check_policies(config.policies.policy, config.cluster.slots)
    learned = [name for name in config.policies.policy if is_learned(name)]
    if learned and config.grid.forecast == "none" and config.cluster.window_h < LEARNED_WINDOW_H:
        raise ValueError(
            f"--policy {learned[0]} looks {LEARNED_WINDOW_H} h ahead: give a --window-h from {LEARNED_WINDOW_H} on, or "
            "a --forecast"
        )
    if "forecast-greedy" in config.policies.policy and config.grid.forecast == "none":
        raise ValueError("--policy forecast-greedy needs a forecast: add --forecast yesterday, transformer, ...")
    _check_ranges(config)
    data = data_folder(config.benchmark.data, environ)
    grid, benchmark = config.grid, _settled_benchmark(replace(config.benchmark, data=data))
    if grid.start == "":
        raise ValueError("--start is empty: give one, or leave the option out")
    if config.search.choice == "corrected" and benchmark.objectives and len(benchmark.objectives) != 2:
        raise ValueError(
            f"--choice corrected ranks by the gain in two objectives, --objectives names {len(benchmark.objectives)}: "
            "name two, or take --choice estimate"
        )
    trace = trace_name(grid.trace, "us-cal-ciso" if data else "synthetic-ciso")
    start = grid.start or (PAPER_START if trace in KNOWN_TRACES else None)
    return replace(
        config,
        grid=replace(grid, trace=trace, start=start),
        benchmark=benchmark,
        power=_settled_power(config.power),
    )


def trace_name(trace: str | None, default: str) -> str:
    """The trace's name, or the full path of its file; `ValueError` where there is neither."""
    if trace == "":
        raise ValueError("--trace is empty: give one, or leave the option out")
    name = default if trace is None else trace
    try:
        if Path(name).is_file():
            return str(Path(name).absolute())
        impossible = "\0" in name
    except OSError:  # too long
        impossible = True
    if impossible:
        raise ValueError(f"--trace {name[:40]!r}: no file has such a name: give a CSV file or a known trace")
    if name in KNOWN_TRACES or "." in name or "/" in name:
        return name
    raise ValueError(f"--trace: {unknown_name(name, KNOWN_TRACES)}, or a CSV file")


def unknown_name(name: str, known: Iterable[str]) -> str:
    """`'heuristc' is unknown: did you mean heuristic?`, or all known names where none is near."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"{name!r} is unknown: " + (f"did you mean {' or '.join(near)}?" if near else f"choose {', '.join(known)}")


def check_count(option: str, value: int, highest: int) -> None:
    if not 1 <= value <= highest:
        raise ValueError(f"--{option} {value}: give a whole number from 1 to {highest}")


def is_learned(policy: str) -> bool:
    return policy in LEARNED_POLICIES or policy.endswith(".npz")


def _settled_benchmark(options: BenchmarkOptions) -> BenchmarkOptions:
    name = options.benchmark or ("nas-bench-201" if options.data else "synthetic")
    if name == "nas-bench-201":
        if options.data is None:
            raise ValueError(
                "--benchmark nas-bench-201 needs real data: set CENAS_DATA or --data, or take --benchmark synthetic"
            )
        if options.objectives and len(options.objectives) > MOST_OBJECTIVES:
            raise ValueError(
                f"--objectives: {len(options.objectives)} are named, and a search takes at most {MOST_OBJECTIVES}: "
                f"name 1 to {MOST_OBJECTIVES}"
            )
        return replace(
            options,
            benchmark=name,
            objectives=options.objectives or NAS_BENCH_201_OBJECTIVES,
            estimate=options.estimate or NAS_BENCH_201_ESTIMATE,
        )
    if options.objectives is not None:
        raise ValueError("--objectives: the synthetic benchmark has its own: leave them out")
    estimate = options.estimate or SYNTHETIC_ESTIMATE
    synthetic_tau(estimate)
    return replace(options, benchmark=name, estimate=estimate)


def synthetic_tau(estimate: str) -> float:
    """Kendall tau of the synthetic benchmark's `noise-TAU`; `ValueError` for anything else."""
    kind, _, text = estimate.partition("-")
    try:
        tau = float(text)
    except ValueError:
        tau = math.nan
    if kind != "noise" or not 0 < tau < 1:
        raise ValueError(
            f"--estimate: {estimate!r} does not fit the synthetic benchmark: give noise-TAU with a Kendall tau between "
            "0 and 1, such as noise-0.5"
        )
    return tau


def _settled_power(options: PowerOptions) -> PowerOptions:
    if options.power == "paper":
        given = {"--gpu": options.gpu, "--pue": options.pue, "--idle-slots": options.idle_slots or None}
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"{name} does not apply to --power paper: leave it out, or take --power measured")
        return options
    defaults = inspect.signature(measured).parameters
    return replace(
        options,
        gpu=defaults["gpu"].default if options.gpu is None else options.gpu,
        pue=defaults["pue"].default if options.pue is None else options.pue,
    )


def _check_policies(policies: tuple[str, ...], slots: int) -> None:
    if not policies:
        raise ValueError(f"--policy: name at least one of {', '.join((*POLICIES, *LEARNED_POLICIES))}, fixed-V")
    for name in policies:
        if name.startswith("fixed-") and name[6:].isdecimal():
            if int(name[6:]) > slots:
                raise ValueError(f"--policy {name}: there are only {slots} slots: give fixed-0 to fixed-{slots}")
        elif name.endswith(".npz"):
            if not Path(name).is_file():
                raise ValueError(f"--policy {name}: there is no such file: make one with cenas policy train")
        elif name not in (*POLICIES, *LEARNED_POLICIES):
            raise ValueError(
                f"--policy: {unknown_name(name, (*POLICIES, *LEARNED_POLICIES, f'fixed-V (V = 0..{slots})'))}"
            )
        if policies.count(name) > 1:
            raise ValueError(f"--policy {name}: named {policies.count(name)} times: name each only once")


def _check_ranges(config: SimulateConfig) -> None:
    """Whole numbers from 1 to what a search can make use of or memory can hold, shares in 0..1, limits above 0."""
    limits, cluster = config.limits, config.cluster
    check_count("seeds", config.policies.seeds, MOST_SEEDS)
    check_count("hours", limits.hours, 10 * YEAR_H)
    check_count("slots", cluster.slots, MOST_SLOTS)
    check_count("queue-capacity", cluster.queue_capacity, ARCHITECTURES)
    check_count("screen-per-interval", cluster.screen_per_interval, ARCHITECTURES)
    check_count("initial-design", cluster.initial_design, DIFFERENT_ARCHITECTURES)
    check_count("window-h", cluster.window_h, YEAR_H)
    if limits.evaluation_limit is not None:
        check_count("evaluation-limit", limits.evaluation_limit, 2**31 - 1)
    if cluster.capacity is not None:
        check_count("capacity", cluster.capacity, ARCHITECTURES)
        if cluster.capacity < cluster.initial_design:
            raise ValueError(
                f"--capacity {cluster.capacity}: has no room for the --initial-design of {cluster.initial_design}: "
                f"give {cluster.initial_design} or more, or a smaller --initial-design"
            )
    for name, value in {"carbon-limit-g": limits.carbon_limit_g, "energy-limit-kwh": limits.energy_limit_kwh}.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"--{name} {value}: give a number above 0, or leave it out for no limit")
    for name, value in {"seed": config.policies.seed, "data-seed": config.benchmark.data_seed}.items():
        if not 0 <= value < 2**31:
            raise ValueError(f"--{name} {value}: give a whole number from 0 to {2**31 - 1}")
    if not 0 <= config.policies.threshold <= 1:
        raise ValueError(f"--threshold {config.policies.threshold}: a relative intensity lies in 0..1")
    if not 0 <= config.policies.diminishing <= 1:
        raise ValueError(f"--diminishing {config.policies.diminishing}: give a number from 0 to 1")
    if config.grid.max_gap_h < 0:
        raise ValueError(f"--max-gap-h {config.grid.max_gap_h}: give 0 hours or more")
