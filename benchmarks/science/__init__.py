"""Experiments that try what the analysis predicts: one command each, seeds fixed, results in docs/science."""
