# Everything starts from a machine with Python 3.11 or newer and make. `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CAMPAIGN := $(BIN)/python -m tests.campaigns
STATE := build/campaigns

.DEFAULT_GOAL := help
.PHONY: help demo test check format lint types contracts lock models bench picture campaign clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/ready: requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: $(VENV)/ready ## a practice ward, scored live: first a check of 200 results, then a page to open
	$(BIN)/sidecar demo --check 200
	$(BIN)/sidecar demo

test: $(VENV)/ready ## the tests; peers that are not installed are skipped, each with one line
	$(BIN)/python -m pytest

check: format lint types contracts ## everything CI checks: format, lint, types, imports, tests with branch coverage
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered

format: $(VENV)/ready ## is everything formatted?
	$(BIN)/ruff format --check .

lint: $(VENV)/ready
	$(BIN)/ruff check .

types: $(VENV)/ready
	$(BIN)/mypy
	@for folder in models/*/*/; do echo "mypy $$folder"; $(BIN)/mypy $$folder*.py || exit 1; done

contracts: $(VENV)/ready
	$(BIN)/lint-imports

lock: $(VENV)/ready ## pin the dependencies again, with hashes and without index addresses
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --extra dev pyproject.toml -o requirements-dev.lock

models: $(VENV)/ready ## build the shipped graphs again (the bytes must not change), render the cards, pin what is there
	@for script in models/*/*/build.py models/*/*/reference.py; do echo $$script; $(BIN)/python $$script || exit 1; done
	@for folder in models/*/*; do name=$${folder#models/}; $(BIN)/sidecar models seal $$folder && \
	  $(BIN)/sidecar models card $$name > build-card.md && cp build-card.md $$folder/card.md && rm build-card.md && \
	  $(BIN)/sidecar models seal $$folder || exit 1; done

bench: $(VENV)/ready ## the sidecar beside the least that does the job: CPU, latency, requests; about an hour
	$(BIN)/python -m tests.benchmarks

picture: $(VENV)/ready ## take the README's picture of the ward again, from a real demo; needs Chromium
	$(BIN)/python -m tests.browser.picture

campaign: $(VENV)/ready ## the long campaigns of faults and of load, seeded; interrupted, they go on where they were
	$(CAMPAIGN).kill --points 200 --state $(STATE)/kill
	$(CAMPAIGN).notifications --runs 300 --state $(STATE)/notifications
	$(CAMPAIGN).workers --points 200 --state $(STATE)/workers
	$(CAMPAIGN).duplicates --runs 20 --state $(STATE)/duplicates
	$(CAMPAIGN).outage --runs 10 --state $(STATE)/outage
	$(CAMPAIGN).slow_clients --seconds 120 --state $(STATE)/slow_clients
	$(CAMPAIGN).overload --state $(STATE)/overload
	$(CAMPAIGN).memory --state $(STATE)/memory
	$(CAMPAIGN).canaries --runs 4 --state $(STATE)/canaries
	$(CAMPAIGN).canaries --runs 2 --engine postgres --state $(STATE)/canaries-postgres
	$(CAMPAIGN).flat --state $(STATE)/flat --plot build/flat.svg
	rm -r $(STATE)

clean: ## remove what was built
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
