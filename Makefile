# Everything a new user needs: `make demo` runs a real search, `make test` the tests. No root needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := demo
# Tests run side by side, a file at a time: two for each processor, because a test that starts processes mostly
# waits; eight at most, because each has torch in its memory.
JOBS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$((n < 4 ? 2 * n : 8)))
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
# pip compiles twenty thousand files one after another; this does it on all processors.
COMPILE := $(BIN)/python -c 'import compileall, sysconfig; compileall.compile_dir(sysconfig.get_path("purelib"), quiet=2, workers=0)'
PYTEST := $(BIN)/python -m pytest
SIDE_BY_SIDE := -n $(JOBS) --dist loadfile --no-loadscope-reorder
CONDENSERY := $(abspath $(BIN))/condensery

.PHONY: help demo demo-bench install dev test test-fast test-long test-soak check lint format clean-demo

help:
	@echo "make demo        install into $(VENV), search on scikit-learn's digits, show front, pick, bundle and report"
	@echo "make demo-bench  a second, bigger search, in seconds: up to 200 trainings of CondenseBench, replayed"
	@echo "make test        install what tests need and run all but the long forms"
	@echo "make test-fast   the tests that take less than a second each"
	@echo "make test-long   before a release, the long forms: kills at every phase, Ray of its own and on two nodes, a study on the emulated device"
	@echo "make test-soak   more of what chance finds: 75,000 hostile models, thousands of hostile calls, disks that fill, a long lock"
	@echo "make check       ruff, mypy and the tests of who may import whom, between packages and between rooms"
	@echo "make clean-demo  remove the demo's folder, to start it again"

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Condensery needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP_INSTALL) -e .
	@$(COMPILE)
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(PIP_INSTALL) -e '.[dev]'
	@$(COMPILE)
	touch $@

install: $(VENV)/.installed
dev: $(VENV)/.dev

demo: install
	@mkdir -p $(DEMO)
	@cd $(DEMO) && { test -f study.toml || $(CONDENSERY) init study.toml --preset digits --measure-budget; }
	@cd $(DEMO) && $(CONDENSERY) launch study.toml --resume
	@echo; echo "The Pareto front:"
	@cd $(DEMO) && $(CONDENSERY) pareto study.toml
	@echo; echo "The network to deploy under the study's budget on this machine:"
	@cd $(DEMO) && $(CONDENSERY) pick study.toml --out bundle --force
	@cd $(DEMO) && $(CONDENSERY) report study.toml --out report.html
	@echo; echo "Look at $(DEMO)/report.html, $(DEMO)/bundle/MODEL_CARD.md and: cd $(DEMO) && ../$(BIN)/condensery --help"
	@echo "A bigger search in less than a minute, of trainings that were done before and are replayed: make demo-bench"

demo-bench: install
	@mkdir -p $(DEMO)/bench
	@cd $(DEMO)/bench && $(CONDENSERY) launch --replay condensebench --resume
	@echo; echo "The Pareto front:"
	@cd $(DEMO)/bench && $(CONDENSERY) pareto condensebench
	@cd $(DEMO)/bench && $(CONDENSERY) report condensebench --out report.html
	@echo; echo "Look at $(DEMO)/bench/report.html, or at the live page: cd $(DEMO)/bench && ../../$(BIN)/condensery dashboard --open"

test: dev
	$(PYTEST) $(SIDE_BY_SIDE) -m "not alone and not long and not soak"

test-fast: dev
	$(PYTEST) $(SIDE_BY_SIDE) -m "not slow and not browser and not alone and not long and not soak"

test-long: dev
	$(PYTEST) $(SIDE_BY_SIDE) -m "long and not alone and not soak"
	$(PYTEST) -m "alone and not soak"

test-soak: dev
	$(PYTEST) -m soak

check: lint
	$(BIN)/python -m pytest -q tests/test_imports.py tests/test_rooms.py

lint: dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean-demo:
	rm -rf $(DEMO)
