# Set-up happens in .venv, once, and again when pyproject.toml or constraints.txt change.
PYTHON ?= python3
OUT ?= demo
SEED ?= 0
# PyPI's torch for Linux brings several GB of CUDA libraries; this index has the CPU build.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: help demo test clean

help:
	@echo 'make demo    runs everything on the embedded phantom, offline, into $(OUT)/ (OUT=, SEED=)'
	@echo 'make test    lint, types and tests, as CI does'
	@echo 'make clean   deletes $(VENV), $(OUT)/ and caches'
	@echo 'PYTHON=/path/to/python3 chooses the interpreter (3.11 or later)'

demo: $(VENV)/.installed-all
	$(BIN)/mine-jax demo --out '$(OUT)' --seed $(SEED)

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check mine_jax kernels/mine_kernels
	$(BIN)/python -m pytest

clean:
	rm -rf $(VENV) '$(OUT)' .pytest_cache .ruff_cache

$(VENV)/.installed-all: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing the package and its locked dependencies into $(VENV) (a few minutes)'
	$(PIP) install --quiet -c constraints.txt -e '.[all]'
	@touch $@

# torch comes first and alone: where the CPU index cannot be reached, pip goes on with what it finds elsewhere.
$(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing the package, its locked dependencies and the test tools into $(VENV) (a few minutes)'
	@$(PIP) install --quiet --retries 1 --timeout 20 --no-deps --index-url $(TORCH_INDEX) '$(TORCH)' || \
	  echo 'no CPU build of torch from $(TORCH_INDEX); trying the usual index'
	$(PIP) install --quiet -c constraints.txt -e '.[test]'
	@touch $@

# Debian splits venv from python3: a machine may have virtualenv, or pip alone, instead.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or later is needed: make PYTHON=/path/to/python3'; exit 1; }
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || \
	  { rm -rf $(VENV); $(PYTHON) -m virtualenv --quiet $(VENV) 2>/dev/null; } || \
	  { rm -rf $(VENV); $(PYTHON) -m venv --without-pip $(VENV) && \
	    $(PYTHON) -m pip --quiet --python $(BIN)/python install pip 2>/dev/null; } || \
	  { rm -rf $(VENV); echo 'cannot make a virtual environment: on Debian, apt install python3-venv'; exit 1; }
