"""What surrounds a compiled training step: the host's part before it, and order if it raises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx

Leaf = tuple[Any, Any, mx.array]  # container, key, array


def leaves(tree: Any) -> Iterator[Leaf]:
    """Every array in nested dicts (modules among them) and lists, with the place where it is kept."""
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in entries:
        if isinstance(value, mx.array):
            yield tree, key, value
        else:
            yield from leaves(value)


def guarded(
    step: Callable[..., Any],
    captured: list[Any],
    advance: Callable[[int | None], None],
    drop: Callable[[], None],
) -> Callable[..., Any]:
    """`advance(count)`, then `step`; if that raises, `drop()`, with the captured arrays put back.

    A trace replaces the arrays of the captured trees by its own, and leaves those there if it raises.
    """

    def run(*args: Any, count: int | None = None, **kwargs: Any) -> Any:
        advance(count)
        kept = list(leaves(captured))
        try:
            return step(*args, **kwargs)
        except BaseException:
            for container, key, array in kept:
                container[key] = array
            drop()
            raise

    return run
