"""Jacobi's eigenvalue and singular value methods, in array operations only and in a fixed number of sweeps.

A rotation in the plane of columns p and q makes them orthogonal (`svd`, one-sided) or clears the entry (p, q) of a
symmetric matrix (`eigh`, two-sided). n/2 disjoint pairs are rotated at once: the columns are held in two halves,
pair i is column i of either, and after each rotation all columns but the first move on by one place, as the
players of a round-robin tournament do. n − 1 moves make a sweep: every pair has met once, and every column is back
at its place. With tan 2φ = 2γ/(β − α) for the 2 x 2 problem [[α, γ], [γ, β]] and the smaller angle φ

    t = sign((β − α) γ) |2γ| / (|β − α| + √((β − α)² + 4γ²)),      c = 1/√(1 + t²),      s = t c

Numbers below ε² of the largest entry, and tangents below ε², count as 0 (ε the spacing of the type). That is far
below what rounding leaves, and keeps all products normal numbers: hardware that flushes subnormal ones to 0 has the
same bits. Convergence is quadratic in the end. Source: Jacobi (1846), Hestenes (1958), Brent and Luk (1985); the
floor is ours.
"""

from __future__ import annotations

from ..recursion import Array, Namespace
from ..scaling import power_of_two


def sweeps(n: int, eps: float) -> int:
    """The number of sweeps for n columns, from measurements; eigenvalues that repeat in float64 need the most."""
    log = n.bit_length()
    return 6 + log if eps > 1e-10 else 8 + 2 * log


def identity(xp: Namespace, like: Array) -> Array:
    """I in the shape (..., n, n), type and place of `like`: a one and n zeros, n times over, cut to n²."""
    lead, n = tuple(like.shape[:-2]), like.shape[-1]
    rows = xp.concat([xp.ones_like(like[..., :1]), xp.zeros_like(like)], axis=-1)
    return xp.reshape(xp.reshape(rows, (*lead, n * (n + 1)))[..., : n * n], (*lead, n, n))


def diagonal(xp: Namespace, a: Array) -> Array:
    """The entries a_ii (..., n) of (..., n, n): n² numbers and n zeros in rows of n + 1 begin with them."""
    lead, n = tuple(a.shape[:-2]), a.shape[-1]
    flat = xp.concat([xp.reshape(a, (*lead, n * n)), xp.zeros_like(a[..., 0, :])], axis=-1)
    return xp.reshape(flat, (*lead, n, n + 1))[..., 0]


def floored(xp: Namespace, x: Array, floor: float) -> Array:
    """x with 0 for entries of magnitude below `floor`."""
    return xp.where(xp.abs(x) < floor, xp.zeros_like(x), x)


def rotation(xp: Namespace, alpha: Array, beta: Array, gamma: Array, floor: float) -> tuple[Array, Array]:
    """(c, s) of the docstring, for arrays of 2 x 2 problems."""
    one, d = xp.ones_like(gamma), beta - alpha
    a, b = xp.abs(d), xp.abs(2.0 * gamma)
    larger = xp.where(a > b, a, b)
    larger = xp.where(larger == 0, one, larger)
    ratio = xp.where(a > b, b, a) / larger
    size = b / (a + larger * xp.sqrt(one + ratio * ratio))
    size = xp.where(size < floor, xp.zeros_like(size), size)
    size = xp.where(d < 0, -size, size)
    t = xp.where(gamma < 0, -size, size)
    c = one / xp.sqrt(one + t * t)
    return c, t * c


def moved(xp: Namespace, p: Array, q: Array) -> Array:
    """All columns but the first of the halves p, q one place on, joined: (p₁ q₁ p₂ ..., q₂ q₃ ... p_h)."""
    h = p.shape[-1]
    if h == 1:
        return xp.concat([p, q], axis=-1)
    inner = [p[..., 1:-1]] if h > 2 else []
    return xp.concat([p[..., :1], q[..., :1], *inner, q[..., 1:], p[..., -1:]], axis=-1)


def turned(xp: Namespace, x: Array, c: Array, s: Array) -> Array:
    """The two halves of the columns of x rotated into each other, and moved on."""
    h = x.shape[-1] // 2
    c, s, p, q = c[..., None, :], s[..., None, :], x[..., :h], x[..., h:]
    return moved(xp, c * p - s * q, s * p + c * q)


def prepared(xp: Namespace, a: Array, floor: float) -> tuple[Array, Array]:
    """(a over a power of two, floored; that power): entries are at most 4."""
    scale = power_of_two(xp, xp.max(xp.abs(a), axis=(-2, -1), keepdims=True))
    return floored(xp, a * (xp.ones_like(scale) / scale), floor), scale


def evened(xp: Namespace, a: Array) -> Array:
    """a with a column of zeros after an odd number of columns."""
    return xp.concat([a, xp.zeros_like(a[..., :1])], axis=-1) if a.shape[-1] % 2 else a


def orthonormal(xp: Namespace, v: Array) -> Array:
    """v (..., n, n), orthogonal up to rounding, after one step of Newton and Schulz: V + V (I − VᵀV)/2."""
    excess = identity(xp, v) - xp.matmul(xp.matrix_transpose(v), v)
    return v + 0.5 * xp.matmul(v, excess)


def eigh(xp: Namespace, a: Array) -> tuple[Array, Array]:
    """(λ, Q) of symmetric a (..., n, n), a = Q diag(λ) Qᵀ; λ (..., n) in no order.

    Errors: |λ − λ_true| and ‖aQ − Qλ‖ some u n ‖a‖, Qᵀ Q = I to some u.
    """
    n, eps = a.shape[-1], float(xp.finfo(a.dtype).eps)
    if n == 1:
        return a[..., 0], xp.ones_like(a)
    floor = eps * eps
    y, scale = prepared(xp, a, floor)
    square = evened(xp, xp.matrix_transpose(evened(xp, y)))
    even = square.shape[-1]
    h, q = even // 2, identity(xp, square)
    for _ in range(sweeps(n, eps) * (even - 1)):
        along = diagonal(xp, square)
        c, s = rotation(xp, along[..., :h], along[..., h:], diagonal(xp, square[..., :h, h:]), floor)
        both = floored(xp, turned(xp, xp.concat([square, q], axis=-2), c, s), floor)
        half, q = both[..., :even, :], both[..., even:, :]
        square = floored(xp, turned(xp, xp.matrix_transpose(half), c, s), floor)
    q = orthonormal(xp, q[..., :n, :n])
    return scale[..., 0] * xp.sum(q * xp.matmul(y, q), axis=-2), q


def svd(xp: Namespace, a: Array) -> tuple[Array, Array, Array]:
    """(U, σ, Vᵀ) of a (..., m, n), thin, σ (..., k) in no order; columns of U are 0 where σ = 0.

    Wide matrices by their transposes. Errors: ‖a − UΣVᵀ‖ some u n ‖a‖; VᵀV = I to some u, and so UᵀU for σ
    above n ε² ‖a‖: the singular vectors of small singular values are as orthogonal as those of large ones.
    """
    m, n = a.shape[-2:]
    if m < n:
        v, sigma, uh = svd(xp, xp.matrix_transpose(a))
        return xp.matrix_transpose(uh), sigma, xp.matrix_transpose(v)
    eps = float(xp.finfo(a.dtype).eps)
    floor = eps * eps
    y, scale = prepared(xp, a, floor)
    left = evened(xp, y)
    even = left.shape[-1]
    h, v = even // 2, identity(xp, xp.concat([left[..., :1, :]] * even, axis=-2))
    for _ in range(sweeps(n, eps) * (even - 1)):
        p, q = left[..., :h], left[..., h:]
        sums = xp.sum(xp.concat([p * p, q * q, p * q], axis=-1), axis=-2)
        alpha, beta, gamma = sums[..., :h], sums[..., h : 2 * h], sums[..., 2 * h :]
        parallel = xp.abs(gamma) >= (0.5 * eps) * (xp.sqrt(alpha) * xp.sqrt(beta))
        c, s = rotation(xp, alpha, beta, xp.where(parallel, gamma, xp.zeros_like(gamma)), floor)
        both = floored(xp, turned(xp, xp.concat([left, v], axis=-2), c, s), floor)
        left, v = both[..., :m, :], both[..., m:, :]
    left, v = left[..., :n], orthonormal(xp, v[..., :n, :n])
    sigma = xp.sqrt(xp.sum(left * left, axis=-2, keepdims=True))
    one = xp.ones_like(sigma)
    u = left * (one / xp.where(sigma == 0, one, sigma))
    return u, scale[..., 0] * sigma[..., 0, :], xp.matrix_transpose(v)
