"""The pictures of a record. Axes of time are ratios, as everything here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from .ratios import digits, ratio
from .record import OK, Record, Side
from .tables import ordered, ours

COLOURS = {
    "dualopt": "#d1571c", "floor": "#555555", "torch": "#1f5fa8", "mlx": "#2f8f4e", "heavyball": "#7a4fa3",
    "pytorch-optimizer": "#8a6d1f", "torch-optimi": "#c2498f", "schedulefree": "#3f9aa8", "optax": "#6a8f1f",
    "emerging-optimizers": "#000000", "gram-newton-schulz": "#4a4a9a",
}  # fmt: skip
COMPARED = (
    "adamw gpt30", "adamw flat16", "adamw gpt30 bfloat16", "lion gpt30", "sgdm gpt30", "muon mats30", "muon mats768",
    "muon mats128", "mlx adamw gpt10", "mlx lion gpt10",
)  # fmt: skip
SPECTRA = {"gaussian": "Gaussian", "inverse": "1/i", "low rank": "low rank", "log": "log-spaced to 1e-3"}


def pictures(record: Record, where: Path) -> list[Path]:
    """All that the record has something for, as SVG in the directory `where`."""
    drawn = {"peers": _peers(record), "scaling": _scaling(record), "polar": _polar(record)}
    found = []
    for name, figure in drawn.items():
        if figure is not None:
            where.mkdir(parents=True, exist_ok=True)
            path = where / f"{name}.svg"
            figure.savefig(path, format="svg", metadata={"Date": None})
            found.append(path)
    return found


def _figure(width: float, height: float) -> Any:
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams["svg.hashsalt"] = "dualopt"  # the same record, the same bytes
    return Figure(figsize=(width, height), layout="tight")


def _tidy(axis: Any) -> None:
    axis.grid(alpha=0.25, which="major")
    axis.spines[["top", "right"]].set_visible(False)


def _plain(axis: Any) -> None:
    """Ticks as 0.5, 1, 20 and not as powers of ten; over many decades those alone."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5) if high < 300 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _peers(record: Record) -> Any:
    """For each case a line of points: time of a peer over the floor's."""
    sides = [side for name in COMPARED if (side := record.case(name)) and side.floor and len(ordered(side)) > 1]
    if not sides:
        return None
    heights = [len(ordered(side)) for side in sides]
    figure = _figure(9, 0.22 * sum(heights) + 0.55 * len(sides) + 0.5)
    axes = figure.subplots(len(sides), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axis, side in zip(axes, sides, strict=True):
        found = ordered(side)
        for i, peer in enumerate(found):
            spread = ratio(peer, side.floor)
            assert spread is not None
            colour = COLOURS.get(peer.family, "black")
            axis.plot([spread.low, spread.high], [i, i], color=colour, linewidth=1.5, alpha=0.6)
            axis.plot(spread.middle, i, "o", color=colour, markersize=6)
            axis.annotate(
                digits(spread.middle), (spread.high, i), (6, 0), textcoords="offset points", va="center", fontsize=7
            )
        axis.axvline(1, color=COLOURS["floor"], linewidth=1, linestyle="--")
        axis.set_yticks(range(len(found)), [peer.name for peer in found], fontsize=8)
        for label, peer in zip(axis.get_yticklabels(), found, strict=True):
            label.set_color(COLOURS.get(peer.family, "black"))
        axis.set_ylim(len(found) - 0.5, -0.5)
        axis.set_title(f"{side.name}: {side.about}", fontsize=8, loc="left")
        axis.set_xscale("log")
        _plain(axis.xaxis)
        _tidy(axis)
    axes[-1].set_xlabel("time of a step over that of the floor (dashed), median and quartiles")
    return figure


def _scaling(record: Record) -> Any:
    """Time of a step, and of the first one, against the number of parameters."""
    sides = [side for side in record.cases if side.name.startswith("scale ") and ours(side) and ordered(side)]
    if len(sides) < 2:
        return None
    names = list(dict.fromkeys(peer.name for side in sides for peer in side.peers))
    unit = next((median(side.floor.turns) for side in sides if side.floor), None)
    if unit is None:
        return None
    figure = _figure(9, 4.2)
    left, right = figure.subplots(1, 2)
    for name in names:
        found = [(side.parameters, peer) for side in sides if (peer := side.peer(name)) and peer.status == OK]
        if not found:
            continue
        family = found[0][1].family
        style = {"color": COLOURS.get(family, "black"), "label": "floor: stream" if family == "floor" else name}
        line = {"linestyle": "--"} if family == "floor" else {"marker": "o"}
        sizes = [n for n, _ in found]
        left.plot(sizes, [median(p.turns) / unit for _, p in found], **style, **line)
        first = _first(sides, name)
        if family != "floor" and first:
            right.plot(sizes, [median(b["first"] for b in p.phases) / first for _, p in found], **style, **line)
    for axis in (left, right):
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("parameters")
        axis.xaxis.set_major_formatter(lambda x, _: f"{x / 1e6:g} M")
        _plain(axis.yaxis)
        _tidy(axis)
    left.set_title("a step, over the stream at the smallest size", fontsize=9, loc="left")
    right.set_title("the first step, over torch fused's at the smallest size", fontsize=9, loc="left")
    left.legend(frameon=False, fontsize=8)
    return figure


def _first(sides: Sequence[Side], name: str) -> float | None:
    peer = sides[0].peer("torch fused")
    return None if peer is None or peer.status != OK else median(built["first"] for built in peer.phases)


def _polar(record: Record) -> Any:
    """Error over time, a panel for each shape and spectrum."""
    sides = [side for side in record.cases if side.name.startswith("polar ") and side.floor]
    if not sides:
        return None
    figure = _figure(3.4 * len(SPECTRA), 3.6 * len(sides) + 0.8)
    axes = figure.subplots(len(sides), len(SPECTRA), squeeze=False, sharey=True, sharex="row")
    handles: dict[str, Any] = {}
    for line, side in zip(axes, sides, strict=True):
        for axis, (spectrum, title) in zip(line, SPECTRA.items(), strict=True):
            for i, peer in enumerate(p for p in side.peers if spectrum in p.facts and p.status == OK):
                spread = ratio(peer, side.floor)
                if spread is None:
                    continue
                marker = "osD^vP*XhpdH<>"[i % 14]
                style = {"color": COLOURS.get(peer.family, "black"), "marker": marker, "markersize": 7}
                handles[peer.name] = axis.plot(
                    spread.middle, peer.facts[spectrum][1], linestyle="none", label=peer.name, alpha=0.85, **style
                )[0]
            axis.axvline(1, color=COLOURS["floor"], linewidth=1, linestyle="--")
            axis.set_xscale("log")
            axis.set_yscale("log")
            _plain(axis.xaxis)
            _tidy(axis)
            axis.set_title(f"{side.name.removeprefix('polar ')}, {title}", fontsize=9, loc="left")
        line[0].set_ylabel("‖X − U Vᵀ‖ / ‖U Vᵀ‖ (Frobenius)", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("time over that of the products (dashed)", fontsize=8)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure
