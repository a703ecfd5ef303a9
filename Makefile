# Holdfast: `make` lists what there is.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PYTEST := $(BIN)/python -m pytest
# Two at a time, each process with a Kafka and a Postgres of its own: the tests wait for other processes more than they
# compute. `make test WORKERS=0` runs them one after the other.
WORKERS ?= 2
# The few tests that look at pages need a browser, which no Python package brings.
BROWSER := $(if $(shell command -v chromium || command -v chromium-browser),, and not browser)
# A full disk needs a disk that is small, which only root may mount.
MOUNTS := $(if $(filter 0,$(shell id -u)),, and not mounts)

.PHONY: help install demo up test test-unit test-long check format lock bench clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

install: $(STAMP) ## Make .venv with the locked requirements (does nothing the second time)

$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(STAMP)

demo: install ## Run 2,000 real grocery baskets through the whole system
	$(BIN)/holdfast demo

up: install ## Start the whole system here, until Ctrl-C
	$(BIN)/holdfast up

test: install ## Run every test: unit, contracts, integration, end to end
	$(PYTEST) --numprocesses $(WORKERS) --dist loadfile -m "not long$(BROWSER)$(MOUNTS)"

test-unit: install ## Run the tests that need no Kafka and no Postgres (seconds)
	$(PYTEST) tests/unit tests/contracts

test-long: install ## Run the long variants alone (many minutes)
	$(PYTEST) -m "long"

check: install ## Formatting, lint, types, import rules, spelling, migrations
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/squawk --config .squawk.toml services/*/migrations/*.sql

format: install ## Format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# What the image is built of is compiled within what is tested, so that it has the same versions and hashes.
COMPILE := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	--custom-compile-command "make lock"

lock: ## Write requirements.lock, and the image's parts of it, anew from pyproject.toml (needs uv)
	$(COMPILE) --all-extras pyproject.toml --output-file requirements.lock
	$(COMPILE) --extra stripe --constraint requirements.lock pyproject.toml \
		--output-file deploy/requirements-services.lock
	echo hatchling | $(COMPILE) --constraint requirements.lock - --output-file deploy/requirements-build.lock

bench: install ## Measure: figures as a table and as JSON
	$(BIN)/python -m benchmarks

clean: ## Remove what these targets made
	rm -rf .venv .holdfast .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
