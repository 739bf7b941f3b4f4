"""Signatures of the optimizers of other libraries, a file for each library. `..sources` joins them.

Those of installed libraries are read by `tests/test_signatures.py`, so that a change there is noticed here.
"""
