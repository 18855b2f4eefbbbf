# Set-up happens in .venv, once, and again when pyproject.toml or constraints.txt change.
PYTHON ?= python3
OUT ?= demo
SEED ?= 0

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

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
	$(PIP) install --quiet -c constraints.txt -e '.[all,edit]'
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing the package, its locked dependencies and the test tools into $(VENV) (a few minutes)'
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
	  { rm -rf $(VENV); test "$$(id -u)" = 0 && apt-get -qq update && apt-get -qq install -y python3-venv >/dev/null && \
	    $(PYTHON) -m venv $(VENV); } || \
	  { rm -rf $(VENV); echo 'cannot make a virtual environment: on Debian, apt install python3-venv'; exit 1; }
