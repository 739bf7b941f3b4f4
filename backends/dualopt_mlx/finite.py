"""Which gradient is not finite, asked of all at once: an update reads one number, or a compiled step keeps it.

`sign` and `max` may hide a NaN, so every entry is compared with the largest that its row can work with. What is done
with single numbers is kept to one elementwise operation at a time: two would be compiled to a kernel, which takes a C++
compiler on the CPU longer than all of them together save.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import mlx.core as mx

from dualopt.buckets import joined

from .parameters import Named

KEPT = 64  # functions, each for one set of gradients

Bounded = tuple[tuple[tuple[str, ...], float], ...]  # names that are looked at as one array, and their bound


def some(x: mx.array) -> mx.array:
    """`mx.any` of booleans in one axis.

    The CPU reads them one by one, which takes as long as adding numbers up; here eight are read as a word.
    """
    whole = x.size - x.size % 8
    if whole < 2**10 or mx.default_device().type != mx.cpu:
        return mx.any(x)
    words = mx.any(mx.view(x[:whole], mx.uint64))
    return words if whole == x.size else mx.any(mx.stack([words, mx.any(x[whole:])]))


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
            x = mx.concatenate(flat) if len(flat) > 1 else flat[0]
            outside = mx.logical_not(mx.abs(x) <= mx.array(min(bound, most)))
            place = mx.array([at[name] for name in names], mx.int32)
            if len(names) > 1:
                ends = mx.cumsum(mx.array([x.size for x in flat], mx.uint32))
                first = mx.contiguous(mx.broadcast_to(mx.argmax(outside), ends.shape))
                place = place[mx.sum(ends <= first)]
            flags.append(some(outside))
            found.append(mx.reshape(place, ()))
        return mx.max(mx.where(mx.stack(flags), mx.stack(found), mx.zeros(len(flags), mx.int32)))

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
