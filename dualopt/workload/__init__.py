"""The workload: a small language model that both frameworks train on the same bits, and its runs.

``text`` makes tokens and batches, ``model`` the shapes and initial values, ``settings`` how long to
train, ``train`` the loop over a backend's `Trainer`, ``run`` the directory it leaves, ``plot`` the picture.
"""
