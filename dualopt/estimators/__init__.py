"""What the noise of a gradient does to an update that divides by a function of it, and how to undo it.

The mean of m/√v̂ over minibatches is not the update of the mean gradient: m and v share their noise, and 1/√ is
convex (arXiv 2605.20756). From the gradients g_1 ... g_m of microbatches of one update both can be estimated:

    std          ḡ in both memories: what is done everywhere
    cf           cross-fitted: the numerator sees ḡ_A, the memory of squares the mean of g² over B
    inv          1/p → max(1/p − Var(p̄)/p³, 0), from all microbatches
    full         cf, with Var(p̄) from B
    pre_ema      cf, with the variance of the mean of g² over B, through the second derivative of 1/p
    sym          ½ (m_A p_B⁻¹ + m_B p_A⁻¹), both inverses corrected as in full
    loo          each g_r over the p of all the others, averaged
    loo_jensen   the same, corrected for the variance of those p

One file per row. In an estimator the preconditioner is "what it would be had g_j been the gradient".
"""

from __future__ import annotations

from ..recursion import Array, Namespace

STD = "std"
FOUR = (STD, "cf", "inv", "full")  # of every row that estimates
ESTIMATORS = (*FOUR, "pre_ema", "sym", "loo", "loo_jensen")


def lost(xp: Namespace, error: Array, p: Array) -> Array:
    """The part of 1/p that max(1/p − Var/p³, 0) takes away, min(Var/p², 1), for p > 0 and Var = error²."""
    relative = xp.where(error < p, error, p) / p
    return relative * relative
