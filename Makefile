# Each target sets up what it needs; the second time that takes no time. `make help` lists them.

.DEFAULT_GOAL := help
.PHONY: demo up test test-all lint bench dashboards pictures secrets clean help

# The first Python found that PulseWatch supports; `make PYTHON=/path/to/python3.13 ...` chooses another.
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(shell \
	$(name) -c 'import sys; print("$(name)" if (3, 11) <= sys.version_info[:2] <= (3, 13) else "")' 2>/dev/null)))
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input install
# Hundreds of them start a process of ours, which else would compile all its modules anew.
unexport PYTHONDONTWRITEBYTECODE
# Tests wait for servers and processes: twice as many of them as two cores have.
PYTEST := $(BIN)/python -m pytest -n 4

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

test: $(READY) ## run all but the slow tests on PostgreSQL 18 and print the branch coverage of backend/
	$(PYTEST) -m "not slow" --cov --cov-report=term $(ARGS)

test-all: test ## the same, then the slow tests, then what depends on PostgreSQL's version on PostgreSQL 16
	$(PYTEST) -m slow $(ARGS)
	PULSEWATCH_TEST_POSTGRES=16 $(PYTEST) -m database $(ARGS)

LINTS := lint-style lint-format lint-types lint-imports lint-sql
.PHONY: $(LINTS)

# All at the same time, each with its output in one piece where make can do that.
lint: $(READY) ## check style, types, the direction of imports, and SQL
	@$(MAKE) --no-print-directory --jobs --keep-going $(if $(filter output-sync,$(.FEATURES)),--output-sync) $(LINTS)

lint-style:
	$(BIN)/ruff check

lint-format:
	$(BIN)/ruff format --check

lint-types:
	$(BIN)/mypy

lint-imports:
	$(BIN)/lint-imports

lint-sql:
	$(BIN)/sqlfluff lint --processes 2 sql

bench: $(READY) ## measure what docs/performance.md shows (ARGS="--help" lists the options)
	$(BIN)/python -W ignore::DeprecationWarning -m tests.bench $(ARGS)

dashboards: $(READY) ## write grafana/dashboards anew from grafana/build.py
	$(BIN)/python -W ignore::DeprecationWarning -m grafana.build

pictures: $(READY) ## draw docs/images from the dashboards and two weeks of the demo
	$(BIN)/python -W ignore::DeprecationWarning -m tests.pictures

SECRETS := .secrets
PASSWORDS := postgres_password grafana_admin_password grafana_reader_password metabase_admin_password \
	metabase_reader_password metabase_app_password metabase_encryption_key secret_key

# The folder is closed to others; its files are not, because the containers read them as users of their own.
secrets: ## write random passwords for docker-compose.yml into .secrets/
	@test ! -e $(SECRETS) || { echo "$(SECRETS)/ exists; it is not overwritten" >&2; exit 1; }
	@set -e; mkdir -m 700 $(SECRETS); trap 'rm -rf $(SECRETS)' EXIT; trap 'exit 1' HUP INT TERM; \
	for name in $(PASSWORDS); do \
		od -An -N24 -tx1 /dev/urandom | tr -d ' \n' > $(SECRETS)/$$name; \
		test "$$(wc -c < $(SECRETS)/$$name)" -eq 48; \
	done; \
	printf 'postgresql://pulsewatch:%s@postgres:5432/pulsewatch' "$$(cat $(SECRETS)/postgres_password)" \
		> $(SECRETS)/database_url; \
	chmod 644 $(SECRETS)/*; \
	trap - EXIT
	@echo "passwords are in $(SECRETS)/; Grafana: admin and grafana_admin_password, Metabase: metabase_admin_password"

clean: ## remove everything that was made here, but not the data in .pulsewatch/
	rm -rf $(VENV) .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis \
		.schemathesis build dist
	find backend grafana metabase tests -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## show this
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12
