# Each target does all of its own set-up: a virtual environment in .venv, installed from pyproject.toml.
# PYTHON chooses the interpreter (3.11 or newer), STORE the directory of results.

PYTHON ?= python3
STORE ?= runs
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: quickstart test test-latex services lint bench tables-smoke clean

quickstart: $(STAMP)  ## train ten small trials on real digits, and print their table
	$(BIN)/ablatrix run sweeps/quickstart.yaml --store $(STORE)

test: services lint  ## lint, types, layers and every test, two files at a time
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

services:  ## PostgreSQL and a browser for the tests, from Debian where we are root; tests without them are skipped
	bash .ci/services

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

test-latex: $(STAMP)  ## install Debian's TeX where there is none, and compile the reports' tables
	@command -v pdflatex > /dev/null || apt-get install -y --no-install-recommends texlive-latex-recommended texlive-fonts-recommended lmodern
	$(BIN)/python -m pytest -rs tests/ablatrix_reports -k compile

bench: $(STAMP)  ## the speed bars; wants a quiet machine
	for bench in augment step masks siameseim evaluate tracking plan report; do $(BIN)/python benchmarks/$$bench.py || exit 1; done

# Nightly: tables that lack an evaluation are left out, those that are no paper's own stand last, and one that fails hides no other.
SWEEPS := $(filter-out sweeps/published/% %-transfer.yaml,$(sort $(wildcard sweeps/*/*.yaml)))
TABLES := $(filter-out %-cifar100.yaml,$(SWEEPS)) $(filter %-cifar100.yaml,$(SWEEPS))

tables-smoke: $(STAMP)  ## every table's smoke profile on real images (CIFAR-100, Imagenette; see README, Data)
	@failed=""; for sweep in $(TABLES); do \
	  echo "== $$sweep"; $(BIN)/ablatrix run $$sweep --profile smoke --store $(STORE); code=$$?; \
	  if [ $$code -eq 130 ]; then exit 130; fi; \
	  if [ $$code -ne 0 ]; then failed="$$failed $$sweep (exit $$code)"; fi; done; \
	if [ -n "$$failed" ]; then echo "Failed:$$failed" >&2; exit 1; fi

chaos: $(STAMP)  ## a node lost under a trial of two; then a hundred rounds of killed workers, drivers, daemons, nodes and servers, full disks, torn records
	ABLATRIX_CHAOS=1 $(BIN)/python -m pytest tests/ablatrix/test_two_nodes.py -k node_is_gone
	$(BIN)/python tests/chaos/storm.py --rounds 100

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one with PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (torch and its companions are about 5 GB; minutes, once)"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $(STAMP)
