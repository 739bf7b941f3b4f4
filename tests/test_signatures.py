"""The knobs of every source are those of the installed library, with its defaults: a change there fails here."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

from dualopt.convert import REFUSED, SOURCES
from dualopt.convert.knobs import REQUIRED, Source

INSTALLABLE = ("torch", "mlx", "optax", "lion_pytorch")
HERE = [s for s in SOURCES.values() if s.path.partition(".")[0] in INSTALLABLE]


def found(path: str) -> Any:
    """The object at a dotted path; skips if its library is not installed."""
    module, _, name = path.rpartition(".")
    pytest.importorskip(module.partition(".")[0])
    return getattr(importlib.import_module(module), name)


def same(value: Any, default: Any) -> bool:
    if isinstance(value, list | tuple):
        return isinstance(default, tuple) and tuple(value) == default
    return value is default or (value == default and isinstance(value, bool) == isinstance(default, bool))


@pytest.mark.parametrize("origin", HERE, ids=lambda s: s.name)
def test_knobs_are_the_arguments(origin: Source) -> None:
    arguments = dict(inspect.signature(found(origin.path)).parameters)
    arguments.pop("params", None)
    own = {name: knob for name, knob in origin.knobs.items() if not knob.added}
    assert own.keys() == arguments.keys()
    for name, argument in arguments.items():
        default = REQUIRED if argument.default is argument.empty else argument.default
        assert same(default, own[name].default), name


@pytest.mark.parametrize(("library", "module"), [("torch", "torch.optim"), ("mlx", "mlx.optimizers")])
def test_every_optimizer_of_a_library_is_known_or_refused(library: str, module: str) -> None:
    pytest.importorskip(library)
    homes = importlib.import_module(module)
    base = homes.Optimizer
    names = {
        f"{library}-{name.lower()}"
        for name, cls in vars(homes).items()
        if inspect.isclass(cls) and issubclass(cls, base) and cls is not base
    }
    assert names == {name for name in (*SOURCES, *REFUSED) if name.startswith(f"{library}-")}


@pytest.mark.parametrize("name", [name for name in REFUSED if name.startswith("optax-")])
def test_refused_optimizers_of_optax_exist(name: str) -> None:
    assert callable(found(f"optax.{name.removeprefix('optax-')}"))


@pytest.mark.parametrize("origin", SOURCES.values(), ids=lambda s: s.name)
def test_knobs_state_fields_of_their_family(origin: Source) -> None:
    fields = [field for knob in origin.knobs.values() for field in knob.means]
    assert len(fields) == len(set(fields))
    assert set(fields) | set(origin.fixed) <= set(origin.family.neutral)
    assert not set(fields) & set(origin.fixed)
