"""Genotypes as DARTS prints them: the text of a network of normal and reduction cells, both ways. Host only.

    Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=[...], reduce_concat=range(2, 6))

Two edges a node, each an operation and its source: 0 and 1 are the cell's inputs, 2, 3, ... its nodes. All nodes are
concatenated. A space with a free size adds it, as further whole numbers: `cells=20, channels=36`.
"""

import ast

Edges = list[tuple[str, int]]


def genotype_text(normal: Edges, reduction: Edges, sizes: dict[str, int]) -> str:
    concat = f"range(2, {2 + len(normal) // 2})"
    further = "".join(f", {name}={value}" for name, value in sizes.items())
    return f"Genotype(normal={normal}, normal_concat={concat}, reduce={reduction}, reduce_concat={concat}{further})"


def parse_genotype(
    text: str, nodes: int, operations: tuple[str, ...], sizes: tuple[str, ...] = ()
) -> tuple[Edges, Edges, dict[str, int]]:
    """Edges of both cells in node order, and the sizes named. `ValueError` says what is wrong with a malformed text.

    Nothing is evaluated. A list in place of the range is read too, as DARTS has it in its table of genotypes.
    """
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"genotype {text!r} is malformed: {error}") from None
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Genotype"):
        raise ValueError(
            f"genotype {text!r} is malformed: write it like Genotype(normal=[('skip_connect', 0), ...], ...)"
        )
    names = [keyword.arg for keyword in call.keywords]
    expected = ["normal", "normal_concat", "reduce", "reduce_concat", *sizes]
    if call.args or sorted(map(str, names)) != sorted(expected):
        raise ValueError(f"genotype {text!r}: give {', '.join(expected)} by name, each once")
    fields = {str(keyword.arg): keyword.value for keyword in call.keywords}
    try:
        for name in ("normal_concat", "reduce_concat"):
            if _numbers(fields[name]) != list(range(2, 2 + nodes)):
                raise ValueError(f"{name} must be range(2, {2 + nodes}): every node is concatenated")
        normal, reduction = (_edges(name, fields[name], nodes, operations) for name in ("normal", "reduce"))
        return normal, reduction, {name: _number(name, fields[name]) for name in sizes}
    except ValueError as error:
        raise ValueError(f"genotype {text!r}: {error}") from None


def _edges(name: str, value: ast.expr, nodes: int, operations: tuple[str, ...]) -> Edges:
    edges = _literal(value)
    if not isinstance(edges, list | tuple) or len(edges) != 2 * nodes:
        raise ValueError(f"{name} must be a list of {2 * nodes} edges, two for each of {nodes} nodes")
    for place, edge in enumerate(edges):
        if not (isinstance(edge, tuple | list) and len(edge) == 2 and type(edge[1]) is int):
            raise ValueError(f"{name}, edge {place}: {edge!r} is not like ('skip_connect', 0)")
        if edge[0] not in operations:
            raise ValueError(f"{name}, edge {place}: operation {edge[0]!r} is none of {', '.join(operations)}")
        sources = 2 + place // 2
        if not 0 <= edge[1] < sources:
            raise ValueError(f"{name}, edge {place}: node {sources} has the sources 0 .. {sources - 1}, not {edge[1]}")
    return [(operation, source) for operation, source in edges]


def _numbers(value: ast.expr):
    """Of a list, or of `range(first, last)`; None for anything else."""
    if isinstance(value, ast.Call):
        is_range = isinstance(value.func, ast.Name) and value.func.id == "range" and not value.keywords
        ends = [_literal(argument) for argument in value.args]
        if not is_range or len(ends) != 2 or not all(type(end) is int and abs(end) < 100 for end in ends):
            return None
        return list(range(*ends))
    numbers = _literal(value)
    return list(numbers) if isinstance(numbers, list | tuple) else None


def _number(name: str, value: ast.expr) -> int:
    number = _literal(value)
    if type(number) is not int:
        raise ValueError(f"{name} must be a whole number")
    return number


def _literal(value: ast.expr):
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError, RecursionError):
        raise ValueError(f"{ast.unparse(value)} is not a plain list, text or number") from None
