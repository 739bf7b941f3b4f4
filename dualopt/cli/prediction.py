"""`dualopt predict`: what a recipe will do to a model, in numbers and one picture, before it runs."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.text import Text

from .. import durable, tensors
from ..analysis.prediction import Outlook, Prediction, Seen, predict
from ..counts import increment
from ..errors import RecipeError
from ..recipe import Recipe
from ..recursion import Shape
from ..workload.model import GPTConfig, initial, parameter_shapes
from .inspection import model_shapes
from .output import emit, paths, plain, say, stdout, table, warn
from .training import Json

HALVES = {"BF16": "bfloat16", "F16": "float16"}
DTYPES = ("float32", *HALVES.values())


@dataclass(frozen=True)
class Model:
    """Parameters: their shapes, and as far as they are known their RMS and how they are stored."""

    shapes: dict[str, Shape]
    starts: dict[str, float] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)


def command(
    recipe: Annotated[Path, typer.Argument(help="A recipe (TOML).")],
    model: Annotated[
        Path | None,
        typer.Option(
            help="Parameter names and shapes (JSON), or a checkpoint (safetensors). Default: the GPT of the demo.",
            show_default=False,
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option(help="Where the run ends. Default: where the schedule does.", show_default=False)
    ] = None,
    per_update: Annotated[
        int | None, typer.Option(help="Another count of one update than the recipe's.", show_default=False)
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help=f"How weights are stored: {', '.join(DTYPES)}.", show_default=False)
    ] = None,
    curvature: Annotated[
        float | None,
        typer.Option(help="The largest curvature, where it is known, to compare with.", show_default=False),
    ] = None,
    slope: Annotated[
        float | None,
        typer.Option(help="E(g‖ω‖)² per entry of rows: sizes SGDM and Adam with a penalty.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A directory for prediction.png and prediction.json.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict time constants, sizes, angles and memories of every group, without training: a picture with --out."""
    if dtype is not None and dtype not in DTYPES:
        raise RecipeError(f"--dtype is one of {', '.join(DTYPES)}, got {dtype!r}")
    for option, value in (("--curvature", curvature), ("--slope", slope)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise RecipeError(f"{option} is a finite number > 0, got {value!r}")
    seen = _gpt() if model is None else _model(model)
    dtypes = seen.dtypes if dtype is None else dict.fromkeys(seen.shapes, dtype)
    found = predict(
        _recipe(recipe, per_update),
        seen.shapes,
        starts=seen.starts,
        dtypes=dtypes,
        count=count,
        curvature=curvature,
        slope=slope,
    )
    kept = None if out is None else _write(out, found)
    if as_json:
        emit(described(found))
        return
    _print(found)
    if kept is not None:
        paths(**kept)


def _recipe(path: Path, per_update: int | None) -> Recipe:
    recipe = Recipe.load(path)
    if per_update is None:
        return recipe
    usual = increment(per_update, "--per-update")
    return dataclasses.replace(recipe, count=dataclasses.replace(recipe.count, per_update=usual))


def _gpt() -> Model:
    config = GPTConfig()
    return Model(parameter_shapes(config), {name: _rms(x) for name, x in initial(config, 0).items()})


def _model(path: Path) -> Model:
    """From a JSON file of shapes, or the parameters in a safetensors file: a checkpoint of dualopt or any other."""
    if path.suffix == ".json":
        return Model(model_shapes(path))
    _no_pickle(path)
    file = tensors.read(path)
    floating = {name: x for name, x in file.tensors.items() if x.dtype.kind == "f"}
    own = {name: name.removeprefix("parameter/") for name in floating if name.startswith("parameter/")}
    names = own or {name: name for name in floating}
    if not names:
        raise RecipeError(f"{path}: holds no parameters; give a checkpoint, or a JSON file of names and shapes")
    return Model(
        {short: floating[name].shape for name, short in names.items()},
        {short: _rms(floating[name]) for name, short in names.items()},
        {short: HALVES[file.dtypes[name]] for name, short in names.items() if file.dtypes[name] in HALVES},
    )


def _no_pickle(path: Path) -> None:
    """RecipeError for what torch.save writes: reading it could run code."""
    try:
        with path.open("rb") as file:
            begins = file.read(2)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror or error})") from error
    if begins in (b"PK", b"\x80\x02", b"\x80\x04"):
        raise RecipeError(f"{path}: a pickle, which is not read as it may run code; save the weights as safetensors")


def _rms(x: Any) -> float:
    """The root of the mean square, 0 for an empty array."""
    return math.sqrt(float(np.mean(np.square(x), dtype=np.float64))) if x.size else 0.0


def described(found: Prediction) -> dict[str, Any]:
    """A prediction as plain data."""

    def data(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return [float(f"{x:.6g}") for x in value]
        if isinstance(value, tuple):
            return [data(x) for x in value]
        if isinstance(value, Mapping):
            return {key: data(x) for key, x in value.items()}
        return {key: data(x) for key, x in vars(value).items()} if dataclasses.is_dataclass(value) else value

    return dict(data(found))


def _write(out: Path, found: Prediction) -> dict[str, Path]:
    """prediction.json and prediction.png in `out`."""
    from ..analysis.picture import predicted_plot

    numbers, picture = out / "prediction.json", out / "prediction.png"
    try:
        out.mkdir(parents=True, exist_ok=True)
        predicted_plot(picture, found)
        with durable.atomic(numbers) as file:
            file.write(json.dumps(plain(described(found)), indent=2, ensure_ascii=False).encode())
    except OSError as error:
        raise RecipeError(f"--out {out}: cannot be written ({error.strerror or error})") from error
    return {"plot": picture, "data": numbers}


# ---- on the terminal


def _print(found: Prediction) -> None:
    until = f"{found.updates:,} updates of {found.per_update:,} {found.base}, until {found.end:,}"
    until = f"{found.updates:,} updates" if found.base == "updates" else until
    say(f"{until}{' (assumed: state --count)' if found.assumed else ''}; schedule {found.schedule}", hanging=2)
    print()
    columns = ("group", "memory", "A", "shrink", "tenth", "initial", "early", "half", "stands")
    table(f"Time constants, in {found.base}", columns, [_times(g) for g in found.groups])
    say(
        "Half-life of the memory, and over how many updates A it makes them agree; half-life of the shrink, and when a "
        "tenth of an update is left; shares at the end of the initial weights, and of the first quarter of the run in "
        "what was added; how far back half of that reaches; the curvature that the peak of the step stands (*: of the "
        "preconditioned Hessian, H/√v for Adam). –: there is no such thing.",
        style="dim",
    )
    print()
    say("Weights, on gradients that are noise", style="bold")
    _columns("", ("RMS", "end", "settles", "most", "angle", "steady"), "bold")
    for g in found.groups:
        say(f"{g.name}: {g.optimizer}{'' if g.motion == 'additive' else f', {g.motion}'}")
        for s, alike in _alike(g.seen):
            say(s.pattern + (f" and {alike} alike" if alike else ""), indent=2, hanging=2)
            _columns(*_sizes(s))
    print()
    say(
        "RMS at the start (~: assumed), at the end, where it settles at the peak of the step, and at most; radians per "
        "update: the median over the run, and in that steady state. –: there is none, or it depends on the gradients.",
        style="dim",
    )
    for text in found.warnings:
        warn(text)


def _columns(first: str, numbers: Sequence[str], style: str = "") -> None:
    stdout().print(Text(f"    {first:<14}" + "".join(f"{x:>9}" for x in numbers), style=style), soft_wrap=True)


def _times(g: Outlook) -> tuple[str, ...]:
    stands = "–" if g.threshold is None else f"{_brief(g.threshold)}{'*' if g.preconditioned else ''}"
    memory = _brief(g.memory_half_life) if g.memory_half_life else "–"
    lives = (memory, f"{g.amplification:.3g}", _brief(g.shrink_half_life), _brief(g.period))
    return (g.name, *lives, _share(g.left), _share(g.early), _brief(g.reach), stands)


def _alike(seen: tuple[Seen, ...]) -> list[tuple[Seen, int]]:
    """Parameters of one shape and about one start, and how many lines more are like the first."""
    found: dict[Any, list[Seen]] = {}
    for s in seen:
        found.setdefault((s.shape, f"{s.start:.1g}", s.assumed), []).append(s)
    return [(same[0], len(same) - 1) for same in found.values()]


def _sizes(s: Seen) -> tuple[str, tuple[str, ...]]:
    first = ("~" if s.assumed else "") + _number(s.start)
    return "×".join(map(str, s.shape)) or "scalar", (
        first,
        *map(_number, (s.end, s.settles, s.most, s.angle, s.turns)),
    )


def _number(x: float | None) -> str:
    return "–" if x is None else f"{x:.3g}"


def _share(x: float) -> str:
    return "0 %" if x < 1e-4 else f"{100 * x:.2g} %" if x < 0.995 else f"{100 * x:.0f} %"


def _brief(counts: float) -> str:
    """Three digits: 717k for 716,800."""
    if counts == math.inf:
        return "never"
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if counts >= 0.9995 * size:
            return f"{float(f'{counts / size:.3g}'):g}{letter}"
    return f"{counts:.3g}"
