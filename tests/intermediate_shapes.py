"""What a program computes on the way."""

from collections.abc import Iterator
from typing import Any

import jax


def intermediate_shapes(jaxpr: Any) -> Iterator[tuple[int, ...]]:
    """Shapes of all results of all operations, also inside loops, branches and calls."""
    yield from (shape for _, shape in primitives(jaxpr))


def primitives(jaxpr: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names of all operations and the shapes of their results, also inside loops, branches and calls."""
    for equation in jaxpr.eqns:
        yield from ((equation.primitive.name, tuple(variable.aval.shape)) for variable in equation.outvars)
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from primitives(inner)
