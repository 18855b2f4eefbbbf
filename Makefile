# Set-up happens in .venv, once, and again when pyproject.toml or constraints.txt change.
PYTHON ?= python3
OUT ?= demo
SEED ?= 0
DIR ?= demo/subj01

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Bytecode of packages is made when they are first imported, not of all their modules in advance.
INSTALL := $(PIP) install --quiet --no-compile
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-browser screenshots docs check lint stress test-lowest test-newest clean

# What `make check` runs: tests of what all stages share, and of the stages that need no model.
FAST := tests/test_imports.py tests/test_api.py tests/test_config.py tests/test_configs.py tests/test_artifacts.py \
  tests/test_jit_vmap.py tests/kernels/test_implementations.py tests/kernels/test_masked_softmax.py \
  tests/kernels/test_ridge_sweep.py tests/memory/test_rows.py tests/description tests/profile tests/roi

help:
	@echo 'make demo    runs everything on the embedded phantom, offline, into $(OUT)/ (OUT=, SEED=)'
	@echo 'make test    lint, types and tests, as CI does'
	@echo 'make check   lint, types and the fast tests: under a minute'
	@echo 'make stress  kills, damages and starves many small runs, and counts how each ended: long'
	@echo 'make test-browser   the report in a browser: Chromium must be installed'
	@echo 'make screenshots   pictures of the report of DIR= into shots/'
	@echo 'make docs    the reference of all packages, from the docstrings, into site/'
	@echo 'make test-lowest, make test-newest   the fast tests with the lowest, the newest versions of all dependencies'
	@echo 'make clean   deletes $(VENV)*, $(OUT)/ and caches'
	@echo 'PYTHON=/path/to/python3 chooses the interpreter (3.11 or later)'

demo: $(VENV)/.installed-all
	$(BIN)/mine-jax demo --out '$(OUT)' --seed $(SEED)

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-browser: $(VENV)/.installed-browser
	$(BIN)/python -m pytest tests/report/test_browser.py tests/report/test_explorer.py -rs

screenshots: $(VENV)/.installed-browser
	$(BIN)/python -m benchmarks.screenshots '$(DIR)/report.html' --out shots

docs: $(VENV)/.installed-docs
	$(BIN)/python .ci/reference.py site

check: lint
	$(BIN)/python -m pytest -m 'not slow' $(FAST)

stress: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks.check_reliability

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check mine_jax kernels/mine_kernels benchmarks

# In environments of their own, which stay.
test-lowest test-newest: test-%:
	$(MAKE) VENV=$(VENV)-$* $(VENV)-$*/.installed-$*
	$(VENV)-$*/bin/python -m pytest -m 'not slow' $(FAST)

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest '$(OUT)' site shots .pytest_cache .ruff_cache

$(VENV)/.installed-all: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing the package and its locked dependencies into $(VENV) (a few minutes)'
	$(INSTALL) -c constraints.txt -e '.[all,edit]'
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing the package, its locked dependencies and the test tools into $(VENV) (a few minutes)'
	$(INSTALL) -c constraints.txt -e '.[test]'
	@touch $@

$(VENV)/.installed-browser $(VENV)/.installed-docs: $(VENV)/.installed-%: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -c constraints.txt -e '.[test,$*]'
	@touch $@

$(VENV)/.installed-lowest: pyproject.toml .ci/lowest.py | $(BIN)/python
	$(BIN)/python .ci/lowest.py > $(VENV)/lowest.txt
	$(INSTALL) -c $(VENV)/lowest.txt -e '.[test]'
	@touch $@

$(VENV)/.installed-newest: pyproject.toml | $(BIN)/python
	$(INSTALL) --upgrade --upgrade-strategy eager -e '.[test]'
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
