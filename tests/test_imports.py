"""The package's order: a module imports from its own folder or from earlier layers; and its budgets."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "cenas_jax"
LAYERS = (
    ("choices", "spaces", "pareto", "carbon"),
    ("search", "benchmarks"),
    ("forecast",),
    ("nets", "allocation"),
    ("training", "cluster"),
    ("config", "runs", "report"),
    ("cli",),
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
FLAX_FOLDERS = ("nets", "training")
MAX_LINES = 400  # near 300 is the aim

MODULES = sorted(PACKAGE.rglob("*.py"))


def home(module: Path) -> str:
    """The folder, or the file at the top, that a module belongs to; `""` for the package's own `__init__`."""
    first = module.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py").removesuffix("__init__")


def imported(module: Path) -> set[str]:
    """Full names of everything that a module imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: line {node.lineno}: a relative import; write the full name"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_imports_go_one_way(module):
    own = home(module)
    assert own == "" or own in LAYER, f"{own}: give the new folder its place in LAYERS"
    for name in imported(module):
        top, _, rest = name.partition(".")
        if top == "cenas_jax" and own and rest.split(".")[0] in LAYER:
            other = rest.split(".")[0]
            assert other == own or LAYER[other] < LAYER[own] or other in neighbours(own), f"imports {name}"
        if top in ("flax", "linen"):
            assert own in FLAX_FOLDERS, f"imports {name}: only {' and '.join(FLAX_FOLDERS)} know flax"


def neighbours(own: str) -> tuple[str, ...]:
    """Within a layer, a folder may use those named before it."""
    layer = LAYERS[LAYER[own]]
    return layer[: layer.index(own)]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_files_stay_short(module):
    assert len(module.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


HOST_ONLY = (
    "cenas_jax",
    "cenas_jax.cli",
    "cenas_jax.config",
    "cenas_jax.carbon",
    "cenas_jax.benchmarks",
    "cenas_jax.benchmarks.catalogue",
    "cenas_jax.benchmarks.importers",
    "cenas_jax.spaces",
    "cenas_jax.spaces.cell_costs",
    "cenas_jax.spaces.genotypes",
    "cenas_jax.spaces.nas_bench_101_graphs",
    "cenas_jax.spaces.nas_bench_201_cells",
)


def test_bad_input_is_refused_without_starting_jax():
    present = [name for name in HOST_ONLY if is_there(name)]
    assert "cenas_jax.carbon" in present and "cenas_jax.config" in present
    heavy = "[name for name in ('jax', 'flax', 'matplotlib') if name in sys.modules]"
    code = f"import sys; import {', '.join(present)}; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def is_there(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
