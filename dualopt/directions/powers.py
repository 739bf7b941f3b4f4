"""x^p for real p, counts and products along the last axis, in operations with one right answer."""

from __future__ import annotations

import math

from ..recursion import Array, Namespace


def power(xp: Namespace, x: Array, p: float | Array) -> Array:
    """x^p of x > 0: squares for the whole part of p, and for each binary digit of the rest a square root of the last.

    p is a number, or an array of numbers in [0, 1] in the last axis of x, or of length 1 there. Every root halves
    the relative error that its argument has, so that of the product is below the number of digits in units u.
    """
    digits = 4 - math.frexp(float(xp.finfo(x.dtype).eps))[1]  # and what is left of p moves x by less than rounding
    one = xp.ones_like(x)
    if not isinstance(p, int | float):
        out, left, unit = one, p, 1.0
        for i in range(digits + 1):
            x = xp.sqrt(x) if i else x
            taken = left >= unit
            out, left, unit = out * xp.where(taken, x, one), xp.where(taken, left - unit, left), 0.5 * unit
        return out
    if p < 0:
        return one / power(xp, x, -p)
    whole, rest = divmod(p, 1.0)
    out, base, count = one, x, int(whole)
    while count:
        if count % 2:
            out = out * base
        base, count = base * base, count // 2
    for _ in range(digits):
        x, rest = xp.sqrt(x), 2 * rest
        if rest >= 1:
            out, rest = out * x, rest - 1
    return out


def product(xp: Namespace, x: Array) -> Array:
    """The product over the last axis, which stays with length 1: halves are multiplied until one is left."""
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        both = x[..., :half] * x[..., half : 2 * half]
        x = both if x.shape[-1] % 2 == 0 else xp.concat([both, x[..., 2 * half :]], axis=-1)
    return x


def over_count(xp: Namespace, present: Array, like: Array) -> Array:
    """One over the number of true entries along the last axis, which stays with length 1; 1 if there are none."""
    one = xp.ones_like(like)
    count = xp.sum(xp.where(present, one, xp.zeros_like(one)), axis=-1, keepdims=True)
    one = xp.ones_like(count)
    return one / xp.where(count == 0, one, count)
