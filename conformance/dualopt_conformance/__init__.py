"""Conformance: did two machines train alike, and if not, where did they part and which one is off?

What is tried
    inputs         parameters and gradients from the integer generator: the same bits on every machine
    variants, cases
                   variants of the catalogue's rows, and these in situations
    walk           the reference: a case in numpy's exact tier
    experiments, heading, nudged, undecided
                   what is recorded of a case: lockstep, u, free run, float64 oracles, what rounding decides
    closed         the closed loop: a small model on a text
    pins           the digests that this version stands for

What is judged
    metric         scaled ULP, bit differences, normwise error
    arithmetic, bounded, origins, bounds, reductions, forms, batches, budgets, judgement
                   what one update may give: running error bounds over the core itself
    polar_bounds, factorised, followed, folded
                   the same through iterations, factorisations and microbatches
    whitelist      a namespace that refuses what the exact tier may not use
    bench, bitwise, gate, declared, drift, checks
                   the checks of a case in each tier
    mutants, rewrites, rewritten_parts, wrong*, alterations, rearranged, mutation_table
                   wrong optimizers that must be caught, right ones that must pass

What travels
    record, references, workers, manifest, digests, probe
                   a directory of safetensors and a manifest, made by several processes
    compare, verdict, report, cli
                   the verdict on records, with numpy alone
    pytest_plugin, test_backend
                   the same as tests: pytest --pyargs dualopt_conformance --backend mlx
    replays        a group of your own on two backends
    backends, strict
                   array-api-strict as a backend
"""
