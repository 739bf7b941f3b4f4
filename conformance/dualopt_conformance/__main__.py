"""``python -m dualopt_conformance``: the same as ``dualopt conformance``."""

from .cli import main

if __name__ == "__main__":
    main()
