# Each target sets up what it needs; the second time that takes no time. `make help` lists them.

.DEFAULT_GOAL := help
.PHONY: demo up test test-all lint bench clean help

# The first Python found that PulseWatch supports; `make PYTHON=/path/to/python3.13 ...` chooses another.
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(shell \
	$(name) -c 'import sys; print("$(name)" if (3, 11) <= sys.version_info[:2] <= (3, 13) else "")' 2>/dev/null)))
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input install
PYTEST := $(BIN)/python -m pytest -n 2

$(READY): requirements-dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "PulseWatch needs Python 3.11, 3.12 or 3.13" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --upgrade >/dev/null
	@echo "installing into $(VENV) ..."
	@$(PIP) --require-hashes -r requirements-dev.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY) ## run everything with a made-up history and live events
	@exec $(BIN)/pulsewatch demo $(ARGS)

up: $(READY) ## run everything, empty at first
	@exec $(BIN)/pulsewatch up $(ARGS)

test: $(READY) ## run the tests on PostgreSQL 18 and print the branch coverage of backend/
	$(PYTEST) --cov --cov-report=term $(ARGS)

test-all: test ## the same, then the database tests on PostgreSQL 16
	PULSEWATCH_TEST_POSTGRES=16 $(PYTEST) -m database $(ARGS)

lint: $(READY) ## check style, types, the direction of imports, and SQL
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/sqlfluff lint sql

bench: $(READY) ## measure what docs/performance.md shows (ARGS="--help" lists the options)
	$(BIN)/python -m tests.bench $(ARGS)

clean: ## remove everything that was made here, but not the data in .pulsewatch/
	rm -rf $(VENV) .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis \
		.schemathesis build dist
	find backend tests -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## show this
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12
