"""How fast dualopt is beside other optimizers: `dualopt bench`, `make bench`. Ratios of one run, nothing else.

    workloads.py    named lists of parameter shapes
    rules.py        the optimizers that are compared, with the knobs that all libraries are given
    peers/          every peer: parameters and gradients -> a step; the floors are peers, too
    cases.py        which rule on which workload with which peers
    goals.py        what is to be reached: case, peer, ratio
    subject.py      the contract of a peer, and the worker's task
    worker.py       the process of one peer
    link.py         the coordinator's end of it
    turns.py        a case: workers that take turns
    record.py       what was measured, as JSON
    ratios.py       medians and quartiles of ratios; goals reached or not
    surroundings.py the machine, versions and settings
    page.py picture.py terminal.py     what is shown
    run.py          all of it

Coordinator and workers talk JSON lines over pipes. The coordinator imports no framework: a worker has its own process,
and may have its own interpreter, with the peers' packages. Each library has its thread pools to itself there, and
while one works the others wait.
"""
