"""dualopt on torch's engines: `DistributedDataParallel`, and `fully_shard` (FSDP2). See `docs/distributed.md`.

wire.py        collectives of one group of processes, and what they have moved
dtensors.py    between sharded parameters and the pieces that this process holds
layouts.py     where parameters lie, and how whole matrices come together and apart
execute.py     one update over all processes
gathering.py   a snapshot of everything, on one process
"""

from dualopt.agreement import Traffic

from .gathering import gathered

__all__ = ["Traffic", "gathered"]
