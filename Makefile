# What can be done here: `make help`.
PYTHON ?= python3
BIN    := .venv/bin
STAMP  := .venv/.installed-run
DEV    := .venv/.installed-dev
# Twice as many as two cores: much of what is tested waits for daemons.
JOBS   ?= 4

.PHONY: help setup demo up test test-postgres bench scaling drill check words format docs screens lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-14s %s\n", $$1, $$2 }'

setup: $(DEV) ## Create .venv with everything that tests need, and stop

demo: $(STAMP) ## Play the main job end to end on a small shop
	$(BIN)/dlq demo

up: $(STAMP) ## Dagster's UI and daemon on http://127.0.0.1:3000; Ctrl-C stops all of it
	@$(BIN)/dlq up

test: $(DEV) ## Run the whole test suite against a real PostgreSQL
	$(BIN)/pytest -n $(JOBS)

test-postgres: $(DEV) ## Run the suite on a PostgreSQL of Debian's (PGBIN=/usr/lib/postgresql/15/bin)
	$(BIN)/python -m tests.with_postgres $(PGBIN) -- $(BIN)/pytest -n $(JOBS)

bench: $(DEV) ## Measure what it costs, each figure against a peer in the same run (ONLY=outbox: one of them; QUICK=1: two minutes)
	$(if $(QUICK),BENCH_QUICK=1 )$(BIN)/python -m tests.bench $(ONLY)

scaling: $(DEV) ## Times, memory and bytes at 1, 5 and 10 million dead events: docs/scaling.md, half an hour
	$(BIN)/python -m tests.scaling

drill: $(DEV) ## Failures for longer, a quarter of an hour: kills, crashes, outages, crowds (SEED=7: exports as before)
	$(BIN)/python -m tests.drills
	$(BIN)/pytest -n $(JOBS) -rP --timeout 3600 -o python_files='drill_*.py' tests/drills

check: $(DEV) ## Lint, types, layers, SQL, definitions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tests/check_sql.py
	$(BIN)/dagster definitions validate
	$(BIN)/dg check defs

words: $(DEV) ## Report words and phrases that this project avoids (.codespell/)
	@status=0; $(BIN)/codespell || status=1; $(BIN)/python tests/check_words.py || status=1; exit $$status

screens: $(DEV) ## Take the pictures of docs/images again, on the demo's data
	$(BIN)/python -m tests.screens

format: $(DEV) ## Format and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(DEV) ## Write what the documentation takes from the code: variables, definitions, tables
	$(BIN)/python -m tests.settings_table
	$(BIN)/python -m tests.reference

lock: ## Pin anew (needs uv): requirements.lock to run, -dev to develop, -deploy for the container
	uv pip compile $(LOCK) --extra embedded --group pyproject.toml:build -o requirements.lock pyproject.toml
	uv pip compile $(LOCK) --all-extras --group pyproject.toml:build --group pyproject.toml:dev \
	    -c requirements.lock -o requirements-dev.lock pyproject.toml
	uv pip compile $(LOCK) --extra celery --extra k8s --group pyproject.toml:build -c requirements-dev.lock \
	    -o requirements-deploy.lock pyproject.toml
LOCK := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
    --no-annotate --no-header --quiet --upgrade

clean: ## Remove the environment and caches; the data in .dlq stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build

# --no-deps: the lock is complete, so there is nothing to resolve, and `pip check` says so.
INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check --no-deps

.venv/bin/pip:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 to 3.14 is needed, this is " + sys.version.split()[0] + ". Try make PYTHON=python3.13" if not (3, 11) <= sys.version_info[:2] <= (3, 14) else 0)'
	$(PYTHON) -m venv .venv

$(STAMP): requirements.lock pyproject.toml | .venv/bin/pip
	@echo "Installing the pinned requirements into .venv ..."
	@$(INSTALL) --require-hashes -r requirements.lock
	@$(INSTALL) --no-build-isolation --editable .
	@$(BIN)/pip check
	@touch $@

$(DEV): requirements-dev.lock $(STAMP)
	@echo "Installing the pinned test requirements into .venv ..."
	@$(INSTALL) --require-hashes -r requirements-dev.lock
	@$(BIN)/pip check
	@touch $@
