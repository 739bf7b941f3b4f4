"""TOML that is read within bounds, and written in one way only, so that equal texts mean equal tables."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from typing import Any

INTEGERS = range(-(2**63), 2**63)  # those of TOML: 0xfff... may be longer than Python is willing to print


def tables(text: str) -> dict[str, Any]:
    """What a TOML text says.

    Raises:
        ValueError: no TOML, nested too deeply, or an integer of more than 64 bits.
    """
    try:
        found = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    left: list[object] = [found]
    while left:
        match left.pop():
            case dict(inner):
                left += inner.values()
            case list(inner):
                left += inner
            case int(x) if x not in INTEGERS:
                raise ValueError("an integer of more than 64 bits")
    return found


def text(tables: Mapping[str, Any]) -> str:
    """Numbers, strings and lists first, then [tables], then [[lists of tables]], each in the order given."""
    plain, blocks, lists = [], [], []
    for key, value in tables.items():
        if isinstance(value, dict):
            blocks.append(_block(f"[{key}]", value))
        elif isinstance(value, list) and all(isinstance(one, dict) for one in value):
            lists += [_block(f"[[{key}]]", one) for one in value]
        else:
            plain.append(f"{key} = {_value(value)}")
    return "\n\n".join((["\n".join(plain)] if plain else []) + blocks + lists) + "\n"


def _block(head: str, body: Mapping[str, Any]) -> str:
    return "\n".join([head, *(f"{key} = {_value(value)}" for key, value in body.items())])


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "inf" if value == math.inf else repr(value)
    if isinstance(value, list):
        return f"[{', '.join(_value(v) for v in value)}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_value(v)}' for key, v in value.items())} }}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
