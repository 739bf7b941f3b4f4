"""Which rule is timed on which workload with which peers: the whole of `dualopt bench` as data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from dualopt.directions.polar import PRESETS, Way

from .peers import PEERS, Peer, polar, products, stream
from .rules import ROW
from .subject import Task
from .workloads import WORKLOADS, Workload

F32, BF16, FASTEST = "float32", "bfloat16", "fastest"


@dataclass(frozen=True)
class Turns:
    """How often. A turn is one untimed step and at least `least` timed ones, more until `seconds` have passed or there
    are `most`. In a round every peer has a turn; a run is `rounds` rounds after everything has been built anew. Where
    all that would take longer than `budget` seconds there are fewer, see `turns.affordable`."""

    runs: int = 3
    rounds: int = 3
    least: int = 2
    most: int = 50
    seconds: float = 0.06
    budget: float = 25.0


SLOW = Turns(least=1)  # for steps that take a second


@dataclass(frozen=True)
class Case:
    """Peers side by side.

    Attributes:
        kind: "step"; "polar" (facts are errors); "start" (what counts is import, build and the first step); "life"
            (what counts are facts after many steps); "train" (a step of training).
        reference: the peer with whose first step those of the others are compared; none: "".
        cold: workers are started one after the other, each with an empty cache of compiled code.
        about: for readers.
    """

    name: str
    rule: str
    workload: Workload
    peers: tuple[Peer, ...]
    reference: str = ""
    dtype: str = F32
    turns: Turns = field(default_factory=Turns)
    kind: str = "step"
    cold: bool = False
    about: str = ""

    def task(self, peer: Peer) -> Task:
        return Task(peer.make, self.rule, self.workload.shapes, self.dtype, peer.options)

    @property
    def bytes(self) -> int:
        """What all peers take together, about: parameters, gradients and two arrays of state in float32 each."""
        return 16 * self.workload.parameters * len(self.peers)


def _case(
    name: str, rule: str, workload: str, peers: Iterable[str | Peer], reference: str = "", **more: object
) -> Case:
    found = tuple(peer if isinstance(peer, Peer) else PEERS[peer] for peer in peers)
    return Case(name, rule, WORKLOADS[workload], found, reference, **more)  # type: ignore[arg-type]


# What a step reads, and what it reads and writes: gradients; parameters and state.
TWO_STATES = stream((F32,), (F32,) * 3)
ONE_STATE = stream((F32,), (F32,) * 2)
NO_STATE = stream((F32,), (F32,))
HALF = stream((BF16,), (BF16, F32, F32))

_TORCH = ("torch fused", "torch foreach", "torch for-loop")
_ELEMENTWISE = (
    _case(
        "adamw gpt30",
        "adamw",
        "gpt30",
        (
            "dualopt", "dualopt, trusted gradients", *_TORCH, "heavyball", "torch-optimi", "pytorch-optimizer",
            "schedulefree", "optax", "mlx compiled", "mlx eager", TWO_STATES,
        ),
        "torch fused",
        about="dualopt reads all gradients once more, so that bad ones change nothing, unless they are trusted",
    ),
    _case(
        "adamw flat16",
        "adamw",
        "flat16",
        ("dualopt", "torch fused", "torch foreach", "torch-optimi", "optax", TWO_STATES),
        "torch fused",
    ),
    _case(
        "adamw tiny300",
        "adamw",
        "tiny300",
        (
            "dualopt", "dualopt, flat storage", "dualopt, trusted gradients", *_TORCH, "torch-optimi",
            "pytorch-optimizer", "schedulefree", "optax", "mlx compiled",
        ),
        "torch fused",
    ),
    _case(
        "adamw gpt30 bfloat16",
        "adamw",
        "gpt30",
        ("dualopt", "torch fused", "torch foreach", "torch-optimi", HALF),
        "torch fused",
        dtype=BF16,
        about="dualopt keeps float32 state, torch bfloat16 state; the stream is of dualopt's bytes",
    ),
    _case(
        "lion gpt30",
        "lion",
        "gpt30",
        (
            "dualopt", "dualopt, no compiler", "torch-optimi", "pytorch-optimizer", "emerging-optimizers", "optax",
            "mlx compiled", ONE_STATE,
        ),
        "pytorch-optimizer",
    ),
    _case(
        "sgdm gpt30",
        "sgdm",
        "gpt30",
        ("dualopt", *_TORCH, "torch-optimi", "optax", "mlx compiled", ONE_STATE),
        "torch fused",
    ),
)  # fmt: skip

_SHRUNK = ("dualopt direct", "dualopt cautious", "dualopt corrected")
_STATES = {
    "sgdm": ONE_STATE, "rmsprop": ONE_STATE, "sign_sgdm": ONE_STATE, "adamw": TWO_STATES, "adam_l2": TWO_STATES,
    "lion": ONE_STATE,
}  # fmt: skip
_ROWS = tuple(
    _case(f"row {row}", ROW + row, "gpt30", (*_SHRUNK, floor), turns=Turns(runs=3, rounds=2))
    for row, floor in _STATES.items()
)

_MUON = (
    "dualopt",
    *(PEERS["dualopt"].called(f"dualopt {preset}", group={"polar": preset}) for preset in PRESETS),
    "torch Muon",
    "pytorch-optimizer",
    "emerging-optimizers",
    "optax",
)
_SPECTRAL = (
    _case("muon mats30", "muon", "mats30", (*_MUON, "heavyball", products(FASTEST)), "torch Muon", turns=SLOW),
    _case("muon mats768", "muon", "mats768", (*_MUON, products(FASTEST)), "torch Muon", turns=SLOW),
    _case(
        "muon mats128",
        "muon",
        "mats128",
        (*_MUON, "heavyball", "gram-newton-schulz", "mlx compiled", products(FASTEST)),
        "torch Muon",
        turns=SLOW,
    ),
)

_FAMILY = "dualopt", "dualopt-optim"
_WAYS = (
    polar("dualopt", "ours", *_FAMILY, set="quintic"),
    *(
        polar(f"dualopt {preset}", "ours", *_FAMILY, set=stated["polar"], **asdict(Way.of(stated)))
        for preset, stated in PRESETS.items()
    ),
    polar("dualopt five, bfloat16", "ours", *_FAMILY, set="five", form="gram", work=BF16),
    polar("dualopt quintic, bfloat16", "ours", *_FAMILY, set="quintic", form="gram", work=BF16),
    polar("dualopt polar_express", "ours", *_FAMILY, set="polar_express", form="gram"),
    polar("dualopt polar_express, 8 steps", "ours", *_FAMILY, set="polar_express", form="gram", steps=8),
    polar("dualopt exact", "ours", *_FAMILY, set="exact"),
    polar("torch Muon", "torch_muon", "torch", "torch"),
    polar("torch svd", "svd", "torch", "torch"),
    polar("torch eigh, float64", "gram_eigh", "torch", "torch"),
    polar("pytorch-optimizer", "pytorch_optimizer", "pytorch-optimizer", "pytorch-optimizer"),
    polar("emerging-optimizers", "emerging", "emerging-optimizers", "emerging-optimizers"),
    products(FASTEST),
)
_POLAR = tuple(
    _case(f"polar {shape}", "polar", shape, _WAYS, kind="polar", turns=Turns(rounds=3, least=1))
    for shape in ("wide", "square")
)
_FLOAT32 = _case(
    "newton-schulz float32",
    "polar",
    "wide",
    (
        polar("dualopt", "ours", *_FAMILY, set="quintic", form="gram"),
        polar("the same by torch.mm", "ours_by_mm", "torch", "torch", set="quintic", form="gram"),
        products(F32),
    ),
    kind="polar",
    turns=Turns(rounds=3, least=1),
)

_MLX = tuple(
    _case(
        f"mlx {rule} gpt10",
        rule,
        "gpt10",
        ("dualopt (MLX) compiled", "dualopt (MLX)", "mlx compiled", "mlx eager", floor),
        "mlx eager",
    )
    for rule, floor in (("adamw", TWO_STATES), ("lion", ONE_STATE))
)
_OVERHEAD = tuple(
    _case(f"overhead {n}", "adamw", f"python{n}", ("dualopt", "dualopt, flat storage", *_TORCH), "torch fused")
    for n in (10, 300, 3000)
)
SCALES = (1, 3, 10, 30, 100, 300)
_SCALING = tuple(
    _case(
        f"scale {n} M",
        "adamw",
        f"scale{n}",
        ("dualopt", "torch fused", TWO_STATES),
        "torch fused",
        turns=Turns(runs=1 if n > 30 else 3, rounds=3),
        cold=True,
    )
    for n in SCALES
)
_START = (
    _case(
        "start",
        "adamw",
        "gpt30",
        ("dualopt", "torch fused", "torch foreach", "dualopt (MLX) compiled", "mlx compiled"),
        "torch fused",
        kind="start",
        cold=True,
        turns=Turns(runs=3, rounds=0),
    ),
    Case(
        "imports",
        "import",
        Workload("modules", {}, "each in a process of its own that has imported nothing"),
        tuple(PEERS[f"import {name}"] for name in ("numpy", "dualopt", "torch", "dualopt_torch")),
        "import numpy",
        kind="start",
        cold=True,
        turns=Turns(runs=3, rounds=0),
    ),
    _case(
        "recompiles",
        "adamw",
        "scale3",
        ("dualopt, schedule and changing count", "dualopt (MLX), schedule and changing count"),
        kind="life",
        turns=Turns(runs=1, rounds=1, least=999, most=999, seconds=0.0),
    ),
)
MODEL = {"layers": 4, "width": 128, "heads": 4, "context": 64}
_TRAINED = ("dualopt trains", "torch.optim trains", "no optimizer")
_TRAINED_MLX = ("dualopt trains (MLX)", "mlx.optimizers trains", "no optimizer (MLX)")


def _training(name: str, rule: str, peers: Iterable[str], workload: str = "trained") -> Case:
    shaped = [PEERS[peer].called(peer, model=MODEL) for peer in peers]
    model = Workload(workload, {}, "the GPT of dualopt.workload, 4 layers of width 128, 8 sequences of 64 bytes")
    return Case(name, rule, model, tuple(shaped), kind="train", turns=Turns(seconds=0.3))


_TRAINING = (
    _training("training adamw", "adamw", _TRAINED),
    _training("training muon", "muon", _TRAINED),
    _training("training mlx adamw", "adamw", _TRAINED_MLX),
)

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        *_ELEMENTWISE, *_ROWS, *_SPECTRAL, *_POLAR, _FLOAT32, *_MLX, *_OVERHEAD, *_SCALING, *_START, *_TRAINING,
    )
}  # fmt: skip
