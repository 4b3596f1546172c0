# `make help` lists the targets.
PYTHON ?= python3
BIN    := .venv/bin
STAMP  := .venv/.installed-run
DEV    := .venv/.installed-dev
# Twice the number of cores of a small machine: many tests wait for daemons.
JOBS   ?= 4

.PHONY: help install setup demo up test test-midnight test-postgres resolve oldest bench scaling drill check format docs screens lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-14s %s\n", $$1, $$2 }'

install: $(STAMP) ## Create .venv with what dlq and Dagster need

setup: $(DEV) ## Create .venv with all development dependencies

demo: $(STAMP) ## Play fourteen days of a shop, and run every job on them
	$(BIN)/dlq demo

up: $(STAMP) ## Run Dagster's UI and daemon on http://127.0.0.1:3000 until Ctrl-C
	@$(BIN)/dlq up

test: $(DEV) ## Run the test suite on a real PostgreSQL
	@$(COMPILE)
	$(BIN)/pytest -n $(JOBS)

# Each folder by itself, so that midnight passes in the middle of its tests.
CLOCK ?= midnight
MIDNIGHT_TESTS ?= alerts api archive causes cli defs demo deploy exports metrics outbox postgres \
    reports retries web test_*.py
# They start embedded servers, whose programs get an environment of their own and so the true clock.
TRUE_CLOCK := --ignore-glob '*/test_embedded.py' --ignore-glob '*/test_guide.py' \
    --ignore-glob '*/test_ui.py' --ignore-glob '*/archive/test_fire.py' \
    --ignore-glob '*/retries/test_fire.py'

test-midnight: $(DEV) ## Run tests while midnight passes (CLOCK='2027-10-31 00:59:30': another time)
	@set -e; for tests in $(MIDNIGHT_TESTS); do \
	    $(BIN)/python -m tests.clock '$(CLOCK)' -- $(BIN)/python -m tests.with_postgres -- \
	        $(BIN)/pytest -n $(JOBS) $(TRUE_CLOCK) tests/$$tests; \
	done

# The folders whose tests speak SQL; the others test faces, which another server does not change.
# Without those that kill processes or drive a browser: they take long, and test no statement.
SQL_TESTS ?= tests/archive tests/causes tests/exports tests/metrics tests/outbox tests/postgres \
    tests/retries tests/test_audit.py tests/test_repository.py \
    --ignore-glob '*/test_fire.py' --ignore-glob '*/test_browser.py' \
    --ignore-glob '*/test_embedded*.py' --ignore-glob '*/test_adopt.py' \
    --ignore-glob '*/test_install.py' --ignore-glob '*/test_machine.py'

test-postgres: $(DEV) ## Run the tests that speak SQL on Debian's PostgreSQL (PGBIN=/usr/lib/postgresql/15/bin)
	$(BIN)/python -m tests.with_postgres $(PGBIN) -- $(BIN)/pytest -n $(JOBS) $(SQL_TESTS)

# Not part of `make check`, because they ask the package registry.
OLDEST := .venv-oldest
OLDEST_TESTS ?= tests/alerts tests/defs/test_definitions.py tests/defs/test_assets.py \
    tests/defs/test_setting_names.py tests/exports tests/reports/test_report.py tests/api/test_concepts.py \
    tests/cli/test_output.py tests/cli/test_lists.py tests/test_repository.py tests/test_settings.py
RESOLVE = uv pip compile --quiet --python-version $(1) --resolution $(2) --all-extras \
    --group pyproject.toml:test --no-header --no-annotate pyproject.toml

resolve: ## Resolve the newest and the oldest allowed requirements (needs uv and the network)
	$(call RESOLVE,3.11,highest) >/dev/null
	$(call RESOLVE,3.14,highest) >/dev/null
	$(call RESOLVE,3.11,lowest-direct) >/dev/null

oldest: ## Run tests with the oldest allowed requirements (needs uv and the network)
	uv venv --quiet --clear --python 3.11 $(OLDEST)
	$(call RESOLVE,3.11,lowest-direct) -o $(OLDEST)/requirements.txt
	uv pip install --quiet --python $(OLDEST)/bin/python -r $(OLDEST)/requirements.txt
	uv pip install --quiet --python $(OLDEST)/bin/python --no-deps --editable .
	$(OLDEST)/bin/pytest -n $(JOBS) -p no:cacheprovider $(OLDEST_TESTS)

bench: $(DEV) ## Measure costs against peers (ONLY=outbox: one module; QUICK=1: two minutes)
	$(if $(QUICK),BENCH_QUICK=1 )$(BIN)/python -m tests.bench $(ONLY)

scaling: $(DEV) ## Measure 1, 5 and 10 million dead events for docs/scaling.md (half an hour)
	$(BIN)/python -m tests.scaling

drill: $(DEV) ## Test kills, crashes, outages and concurrency for a quarter of an hour (SEED=7)
	$(BIN)/python -m tests.drills
	$(BIN)/pytest -n $(JOBS) -rP --timeout 3600 -o python_files='drill_*.py' tests/drills

check: $(DEV) ## Check format, lint, words, types, imports, SQL and definitions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/python tests/check_words.py
	$(BIN)/python tests/check_lines.py
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tests/check_sql.py
	$(BIN)/dagster definitions validate
	$(BIN)/dg check defs

screens: $(DEV) ## Take the screenshots of docs/images again, with the demo's data
	$(BIN)/python -m tests.screens

format: $(DEV) ## Format the code, and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(DEV) ## Generate the tables of the documentation from the code
	$(BIN)/python -m tests.settings_table
	$(BIN)/python -m tests.reference

lock: ## Pin the requirements again (needs uv)
	uv pip compile $(LOCK) --extra all --group pyproject.toml:build -o requirements.lock pyproject.toml
	uv pip compile $(LOCK) --all-extras --group pyproject.toml:build --group pyproject.toml:dev \
	    -c requirements.lock -o requirements-dev.lock pyproject.toml
	uv pip compile $(LOCK) --extra cli --extra api --extra celery --extra k8s --group pyproject.toml:build -c requirements-dev.lock \
	    -o requirements-deploy.lock pyproject.toml
LOCK := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
    --no-annotate --no-header --quiet --upgrade

clean: ## Remove .venv and caches; .dlq stays
	rm -rf .venv .venv-oldest .venv-uv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build

# --no-deps, because the lock is complete; `pip check` verifies that.
INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check --no-deps

# pip compiles what it installs, but no folder that it only links. Where PYTHONDONTWRITEBYTECODE is
# set, each process would compile it again: a third of the start of dlq, a sixth of a run's.
COMPILE = $(BIN)/python -m compileall -q dlq_pipelines

.venv/bin/pip:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 to 3.14 is required, this is " + sys.version.split()[0] + ". Try make PYTHON=python3.13" if not (3, 11) <= sys.version_info[:2] <= (3, 14) else 0)'
	$(PYTHON) -m venv .venv

$(STAMP): requirements.lock pyproject.toml | .venv/bin/pip
	@echo "Installing the pinned requirements into .venv ..."
	@$(INSTALL) --require-hashes -r requirements.lock
	@$(INSTALL) --no-build-isolation --editable .
	@$(COMPILE)
	@$(BIN)/pip check
	@touch $@

$(DEV): requirements-dev.lock $(STAMP)
	@echo "Installing the pinned test requirements into .venv ..."
	@$(INSTALL) --require-hashes -r requirements-dev.lock
	@$(BIN)/pip check
	@touch $@
