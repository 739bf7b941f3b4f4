"""Which gradient is not finite, asked of all at once: an update reads one number, or a compiled step keeps it.

`sign` and `max` may hide a NaN, so every entry is compared with the largest that its row can work with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import mlx.core as mx

from dualopt.buckets import joined

from .parameters import Named

WORD = 0x0101010101010101  # eight times True
KEPT = 64  # functions, each for one set of gradients

Bounded = tuple[tuple[tuple[str, ...], float], ...]  # names that are looked at as one array, and their bound


def every(x: mx.array) -> mx.array:
    """`mx.all` of booleans in one axis, without an end.

    On the CPU it reads them one by one, as long as adding them up takes; eight are read as a word here.
    """
    whole = x.size - x.size % 8
    if whole < 2**10 or mx.default_device().type != mx.cpu:
        return mx.all(x)
    words = mx.all(mx.view(x[:whole], mx.uint64) == mx.array(WORD, mx.uint64))
    return words if whole == x.size else mx.logical_and(words, mx.all(x[whole:]))


@lru_cache(maxsize=KEPT)
def _search(layout: Bounded, places: tuple[tuple[str, int], ...], compiled: bool) -> Callable[[Named], mx.array]:
    at = dict(places)
    most = float(mx.finfo(mx.float32).max)

    def search(gradients: Named) -> mx.array:
        if not layout:
            return mx.array(0, mx.int32)
        flags, found = [], []
        for names, bound in layout:
            flat = [mx.flatten(gradients[name]) for name in names]
            within = mx.abs(mx.concatenate(flat) if len(flat) > 1 else flat[0]) <= mx.array(min(bound, most))
            place = mx.array([at[name] for name in names], mx.int32)
            if len(names) > 1:
                ends = mx.cumsum(mx.array([x.size for x in flat], mx.int32))
                place = place[mx.sum(ends <= mx.argmin(within))]
            flags.append(every(within))
            found.append(mx.reshape(place, ()))
        return mx.max(mx.where(mx.stack(flags), 0, mx.stack(found)))

    return mx.compile(search) if compiled else search


def offending(gradients: Named, largest: Mapping[str, float], places: Mapping[str, int], *, compiled: bool) -> mx.array:
    """The place of a gradient with an entry that is not finite, or above its bound; 0 if there is none. 0-d.

    Args:
        gradients: by name.
        largest: {name: the largest entry that is finite}.
        places: {name: a positive number}.
        compiled: whether a compiler may be called. A function that is being traced takes the search in either way.
    """
    sizes = {name: g.size for name, g in gradients.items()}
    layout = joined(sizes, {name: (largest[name], g.dtype) for name, g in gradients.items()})
    bounded = tuple((names, largest[names[0]]) for names in layout)
    return _search(bounded, tuple((name, places[name]) for name in gradients), compiled)(gradients)
