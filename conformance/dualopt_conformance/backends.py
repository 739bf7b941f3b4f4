"""Backends that are kept for comparison: importing this module makes them known to `dualopt.namespace`.

"strict" is array-api-strict, which has the array API standard and nothing else.
"""

from __future__ import annotations

from dualopt.namespace import imported, register

NAMES = ("strict",)

register("strict", imported("dualopt_conformance.strict"), install="array-api-strict")
