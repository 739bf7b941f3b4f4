"""Between the raw knobs of other libraries and actions, and from one batch size to another.

    retention β per update       memory_half_life   β = 2^(−Δτ/h)
    decay of the weights         shrink_half_life   a = 1 − lr·weight_decay = 2^(−Δτ/h_a)
    Polyak momentum              step               buf = m / (1 − β), so η = lr / (1 − β)
    Nesterov                     readout            μ = β;  plain momentum μ = 1, no momentum μ = 0
    Lion's (β₁, β₂)              readout            h from β₂, μ = β₁/β₂
    Scion's (momentum, scale)    step, shrink       β = 1 − momentum, η = lr·scale, a = 1 − lr

Raw knobs describe one batch size; half-lives are in training counts, with Δτ = `per_update` of them
per update, and hold for every batch size. Where a library does something that no row does, or the other
way round, there is no image, and a RecipeError says why.
"""

from .knobs import OPTIMIZERS, SIGNATURES, Coupled, libraries
from .maps import to_action, to_coupled
from .transfer import transfer

__all__ = ["OPTIMIZERS", "SIGNATURES", "Coupled", "libraries", "to_action", "to_coupled", "transfer"]
