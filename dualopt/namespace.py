"""The contract between the core and an array library, and the table of backends.

A namespace is a tier. The core calls the names in `CONTRACT` and the operators of the arrays
(+ − * / unary −, comparisons, & and | of booleans), with the meaning of the array API standard, and
scalars only as scalar·array and scalar+array. `exact(base)` makes the exact tier of any such namespace;
a backend's own `fast` one may use native sums, products and compilers.

A backend is a `Backend`: two namespaces and a few functions. To add one, fill in the record and
`register` it: `replay` and the conformance suite then run on it. Native optimizers are what `frameworks`
dispatches to.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from .environment import Environment, Facts, check_threads, cpu_only
from .errors import MissingFrameworkError, RecipeError, nearest
from .executor import Execute
from .recursion import Array, Namespace

Tier = Literal["exact", "fast"]
TIERS: tuple[str, ...] = get_args(Tier)

CONTRACT: Mapping[str, str] = {
    "abs": "elementwise |x|",
    "concat": "join along an axis",
    "finfo": "eps of a dtype",
    "matmul": "batched product of the last two axes",
    "matrix_transpose": "swap the last two axes",
    "max": "maximum over axes, keepdims; exact in any order",
    "ones_like": "ones in shape and dtype of x",
    "permute_dims": "reorder axes",
    "reshape": "the same elements in C order",
    "sign": "−1, 0 or 1",
    "sqrt": "elementwise root, correctly rounded in the exact tier",
    "sum": "sum over axes, keepdims; the exact tier replaces it",
    "where": "elementwise choice between two arrays",
    "zeros": "zeros of a shape and dtype",
    "zeros_like": "zeros in shape and dtype of x",
}
OPTIONAL: Mapping[str, str] = {
    "float32_work": "how a fast tier iterates in float32: a `directions.polar.work.Work`",
    "bfloat16_work": "the same in bfloat16",
}
FACTORISING = ("eigh", "inv", "svd", "svdvals")  # of xp.linalg, see `factorise`; `exact` brings its own


def missing(xp: Namespace) -> list[str]:
    """The names of the contract that `xp` lacks."""
    return [name for name in CONTRACT if not hasattr(xp, name)]


@dataclass(frozen=True)
class Backend:
    """One array library as the core sees it.

    Attributes:
        name: as users write it.
        namespaces: {"exact": ..., "fast": ...}.
        from_numpy: (numpy array, dtype name) -> array.
        to_numpy: array -> numpy array; half precision as float32.
        execute: tier -> how one update of a planned group is carried out, on parameters and gradients as
            `from_numpy` stores them; may reuse its input arrays (see `executor.stored` for half precision).
        dtypes: names of the dtypes that `from_numpy` accepts.
        version: of the library, for manifests.
        working: stored array -> the array that is computed with: float32 of half precision.
        environment: what `prepare` calls; None: there is nothing to set, and no device but the CPU.
    """

    name: str
    namespaces: Mapping[str, Namespace]
    from_numpy: Callable[[np.ndarray[Any, Any], str], Array]
    to_numpy: Callable[[Array], np.ndarray[Any, Any]]
    execute: Callable[[str], Execute]
    dtypes: tuple[str, ...] = ("float32",)
    version: str = ""
    working: Callable[[Array], Array] = lambda x: x
    environment: Environment | None = None

    def prepare(self, device: str | None = None, threads: int | None = None) -> Facts:
        """Set the library up for a recorded run, for the rest of the process.

        Args:
            device: where `from_numpy` puts arrays, in the library's own words; None: its default.
            threads: asked of a library that can change them; others report what they use.

        Returns:
            The facts for a manifest: {"framework": ..., "device": ..., "threads": ..., ...}.

        Raises:
            RecipeError: an unknown device, or no number of threads.
            MissingFrameworkError: a device that is not there.
        """
        check_threads(threads)
        facts = {"framework": f"{self.name} {self.version}".strip()}
        if self.environment is None:
            cpu_only(self.name, device)
            return facts | {"device": "cpu"}
        return facts | self.environment(device, threads)

    def namespace(self, tier: str) -> Namespace:
        """The namespace of a tier; RecipeError for an unknown tier."""
        if tier not in self.namespaces:
            raise RecipeError(f"tier: {tier!r} is not one of {', '.join(self.namespaces)}{nearest(str(tier), TIERS)}")
        return self.namespaces[tier]


def imported(module: str) -> Callable[[], Backend]:
    """A loader: the `BACKEND` of a module, imported when it is asked for."""

    def loader() -> Backend:
        found: Backend = importlib.import_module(module).BACKEND
        return found

    return loader


_LOADERS: dict[str, Callable[[], Backend]] = {
    "numpy": imported("dualopt.numpy_backend"),
    "torch": imported("dualopt_torch"),
    "mlx": imported("dualopt_mlx"),
}
_loaded: dict[str, Backend] = {}
_packages: dict[str, str] = {}


def register(name: str, loader: Callable[[], Backend], *, install: str | None = None) -> None:
    """Make `name` known to `load`, `replay` and the conformance suite.

    Args:
        name: as users write it.
        loader: runs on first use; an ImportError says that the library is not installed.
        install: what pip has to install then; default: the extra of this package called `name`.
    """
    _LOADERS[name] = loader
    _loaded.pop(name, None)
    _packages[name] = install or _extra(name)


def _extra(name: str) -> str:
    return f"'dualopt-optim[{name}]'"


def known() -> tuple[str, ...]:
    """The names of all registered backends, installed or not."""
    return tuple(_LOADERS)


def load(name: str) -> Backend:
    """The backend called `name`.

    Raises:
        RecipeError: the name is not registered.
        MissingFrameworkError: its framework is not installed; the message says what to install.
    """
    if name not in _LOADERS:
        raise RecipeError(f"backend: {name!r} is not one of {', '.join(_LOADERS)}{nearest(str(name), _LOADERS)}")
    if name not in _loaded:
        try:
            _loaded[name] = _LOADERS[name]()
        except ImportError as error:
            raise MissingFrameworkError(
                f"backend {name!r} needs a package that is not installed ({error}); "
                f"run: pip install {_packages.get(name) or _extra(name)}"
            ) from error
    return _loaded[name]


def installed() -> tuple[str, ...]:
    """The names of the registered backends that load here."""
    found = []
    for name in _LOADERS:
        try:
            load(name)
        except MissingFrameworkError:
            continue
        found.append(name)
    return tuple(found)
