# `make demo`, `make test` and `make docs` do all set-up themselves: an environment in .venv, made once and brought
# up to date whenever the dependencies change.
PYTHON ?= python3
VENV   := .venv
PEERS  := .venv-bench
TOOLS  := .venv-examples
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Idle OpenMP threads that spin would slow every other process on a small machine.
PYTEST := MLX_ENABLE_TF32=0 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest
JOBS   ?= 2

.PHONY: demo test test-long test-examples lint docs rows bench clean

demo: $(VENV)/run
	$(BIN)/dualopt demo --out runs/demo

test: $(VENV)/dev lint
	$(PYTEST) -n $(JOBS) -m "not long and not examples"

test-long: $(VENV)/dev
	$(PYTEST) -n $(JOBS) -m long

# The examples, with the trainers that they are for.
test-examples: $(TOOLS)/made
	MLX_ENABLE_TF32=0 OMP_WAIT_POLICY=PASSIVE $(TOOLS)/bin/python -m pytest -n $(JOBS) --dist worksteal tests/test_examples.py

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation, in site/: open site/index.html. All of it anew (-E): pages show what the code does and says.
docs: $(VENV)/docs
	MLX_ENABLE_TF32=0 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m sphinx -q -E -W --keep-going docs site

rows: $(VENV)/dev
	MLX_ENABLE_TF32=0 OMP_WAIT_POLICY=PASSIVE OPENBLAS_NUM_THREADS=1 $(BIN)/python benchmarks/rows.py --out docs/rows.md

# Side by side with other optimizers: a quarter of an hour on two idle cores. ONLY='muon*' times a part
# anew and leaves the rest of the page as it was.
bench: $(PEERS)/made
	$(BIN)/dualopt bench --python $(PEERS)/bin/python --page docs/speed.md $(if $(ONLY),--add --only '$(ONLY)')

# Peers and trainers in environments of their own, which see what .venv has. All that they need is listed, so nothing is
# resolved, and none of them brings another torch.
$(PEERS)/made: $(VENV)/run benchmarks/requirements.txt
	$(call beside,$(PEERS),benchmarks/requirements.txt)
	@touch $@

$(TOOLS)/made: $(VENV)/dev examples/requirements.txt
	$(call beside,$(TOOLS),examples/requirements.txt)
	@touch $@

define beside
	$(BIN)/python -m venv $(1)
	$(BIN)/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
	  > $$($(1)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/dualopt-run.pth
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $(2)
endef

# What the package needs, with both frameworks.
$(VENV)/run: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "dualopt needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade "pip>=25.1"
	$(PIP) -c constraints.txt -e ".[all]"
	@touch $@

# What the documentation is built by.
$(VENV)/docs: $(VENV)/run
	$(PIP) -c constraints.txt --group docs
	@touch $@

# What its tests and checks need besides.
$(VENV)/dev: $(VENV)/run
	$(PIP) -c constraints.txt --group dev
	@touch $@

clean:
	rm -rf $(VENV) $(PEERS) $(TOOLS) runs site docs/generated .pytest_cache .mypy_cache .ruff_cache .hypothesis
