"""What the knobs of every source become, as Markdown: python -m dualopt.convert.tables"""

from __future__ import annotations

import re

from .families import ADAM, LION, MUON, RMSPROP, SGD
from .family import Family
from .knobs import REQUIRED, Source
from .scion import SCION, SCIONC
from .sources import REFUSED, SOURCES

TITLES: dict[str, Family] = {
    "Adam": ADAM,
    "RMSprop": RMSPROP,
    "SGD": SGD,
    "Lion": LION,
    "Muon": MUON,
    "Scion": SCION,
    "ScionC": SCIONC,
}
HEADS = {
    "memory_half_life": "β of memory",
    "second_memory_half_life": "β of second memory",
    "shrink_half_life": "1 − a",
}
NOTHING = "–"
UNSEEN = "nothing"


def markdown() -> str:
    """A table for every family, and one of what has no image."""
    parts = [_family(title, family) for title, family in TITLES.items()]
    refused = "\n".join(f"| `{name}` | {why.replace('|', chr(92) + '|')} |" for name, why in REFUSED.items())
    return "\n\n".join([*parts, f"### Without an image\n\n| | |\n|---|---|\n{refused}"]) + "\n"


def states() -> str:
    """The rows of a table of what can be taken over."""
    lines = []
    for source in SOURCES.values():
        layout = source.layout
        if layout is not None:
            theirs = {ours: f"`{name}`" for name, ours in layout.memories.items()}
            first = theirs.get("m", NOTHING) + (" · (1 − β)/(1 − d)" if layout.heavy_ball else "")
            number = "to be stated" if layout.updates is None else f"`{layout.updates}`"
            lines.append(f"| `{source.name}` | {first} | {theirs.get('v', NOTHING)} | {number} |")
    return "\n".join(lines)


def knobs(source: Source) -> str:
    """The path of a source, and a table of its knobs: what each becomes, or which values have an image."""
    names = {name: [f"`{name}`", *(f"`{name}[{i}]`" for i in range(len(k.means)))] for name, k in source.knobs.items()}
    becomes = {key: _cell(source, text) for key, text in source.family.states.items()}
    lines = []
    for name, knob in source.knobs.items():
        parts = [
            HEADS.get(key, f"`{key}`") + ("" if text in names[name] and len(knob.means) < 2 else f" = {text}")
            for key, text in becomes.items()
            if any(one in text for one in names[name])
        ]
        if knob.only:
            parts.append(f"{', '.join(map(repr, knob.only))} only: {knob.why}")
        default = "" if knob.default is REQUIRED else f"`{knob.default!r}`"
        told = "; ".join(parts).replace("|", "\\|") or UNSEEN
        lines.append(f"| `{name}` | {default} | {told} |")
    return "\n".join([f"`{source.path}`:", "", "| knob | default | becomes |", "|---|---|---|", *lines])


def _family(title: str, family: Family) -> str:
    rows = " or ".join(f"`{row}`" for row in family.rows)
    head = " | ".join(HEADS.get(key, f"`{key}`") for key in family.states)
    lines = [
        f"| `{s.name}` | {' | '.join(_cell(s, text) for text in family.states.values())} |"
        for s in SOURCES.values()
        if s.family is family
    ]
    return "\n".join(
        [f"### {title}: {rows}", "", f"| from | {head} |", f"|{'---|' * (len(family.states) + 1)}", *lines]
    )


def _cell(source: Source, text: str) -> str:
    """An expression in the fields of the family as one in the knobs of a source."""
    names = _names(source)
    fixed = {**source.family.neutral, **source.fixed}
    condition, told = re.fullmatch(r"(.*), if (not )?(\w+)", text), ""
    if condition is not None and condition[3] in fixed:
        text, wanted, switch = condition[1], not condition[2], condition[3]
        if switch in names:
            told = f" if {_switch(source, switch, wanted)}"
        elif bool(fixed[switch]) is not wanted:
            return NOTHING
    choice = re.fullmatch(r"(\w+) if (\w+), else (.*)", text)
    if choice is not None and choice[2] not in names:
        text = choice[1] if fixed[choice[2]] else choice[3]
    words = set(re.findall(r"[a-z_]\w+", text)) & set(fixed)
    if "decay" in words and "decay" not in names:
        return NOTHING
    known = {word: names.get(word) or _plain(fixed[word]) for word in words}
    if not words & set(names) and len(words) == 1:
        return next(iter(known.values()))
    found = re.sub(r"[a-z_]\w+(?!')", lambda word: known.get(word[0], word[0]), text) + told
    return found.replace("· (1 − 0.0)/", "/ ")


def _switch(source: Source, field: str, wanted: bool) -> str:
    """The condition that a field is `wanted`, in knobs."""
    name, knob = next((name, knob) for name, knob in source.knobs.items() if field in knob.means)
    if knob.choices:
        return f"`{name}` = {next(value for value, stands in knob.choices.items() if stands is wanted)!r}"
    return f"`{name}`" if wanted else f"not `{name}`"


def _plain(value: object) -> str:
    return NOTHING if value is None else str(value).lower()


def _names(source: Source) -> dict[str, str]:
    """field -> the knob that states it."""
    names = {}
    for name, knob in source.knobs.items():
        for i, field in enumerate(knob.means):
            names[field] = f"`{name}`" if len(knob.means) == 1 else f"`{name}[{i}]`"
    return names


if __name__ == "__main__":
    print(markdown(), end="")
