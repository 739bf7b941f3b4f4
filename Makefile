# `make demo` and `make test` do all set-up themselves: the environment in .venv, made once and
# again whenever the dependencies change.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/ready
PYTEST := MLX_ENABLE_TF32=0 $(BIN)/python -m pytest
JOBS   ?= 2

.PHONY: demo test test-long lint clean

demo: $(READY)
	$(BIN)/dualopt demo --out runs/demo

test: $(READY) lint
	$(PYTEST) -n $(JOBS) -m "not long"

test-long: $(READY)
	$(PYTEST) -n $(JOBS) -m long

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "dualopt needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[all]" --group dev
	@touch $(READY)

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
