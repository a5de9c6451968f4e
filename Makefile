# Everything runs in .venv, with the locked versions. `make` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes

.PHONY: help run serve worker beat test test-clients test-agents test-exact check format bench lock clean

help:
	@echo 'make run      the gateway on 127.0.0.1:8000, with nothing to set up (HOST and PORT override)'
	@echo 'make serve    production: uvicorn with WORKERS processes'
	@echo 'make worker   production: a Celery worker (needs REDIS_URL)'
	@echo 'make beat     production: the clock of the periodic jobs (needs REDIS_URL)'
	@echo 'make test     the whole test suite'
	@echo 'make test-clients   the JavaScript SDKs against a running gateway (needs node 20)'
	@echo 'make test-agents    coding agents, each on a model behind another format than its own (the same)'
	@echo 'make test-exact   limits, credit and usage under load, kills and outages (EXACT="hard-cap --runs 10")'
	@echo 'make check    lint, format, types, migrations, translations, import rules'
	@echo 'make bench    this gateway beside its peers'

.venv/run: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Kodna needs Python 3.11 or newer: make run PYTHON=python3.12' >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@echo 'Installing the locked dependencies into .venv …'
	@$(PIP) -r requirements.txt
	@touch $@

.venv/dev: requirements-dev.txt .venv/run
	@$(PIP) -r requirements-dev.txt
	@touch $@

run: .venv/run
	@exec $(BIN)/python -m kodna.serve run

serve: .venv/run
	@$(BIN)/python manage.py migrate --verbosity 0
	@exec $(BIN)/python -m kodna.serve uvicorn

worker: .venv/run
	@exec $(BIN)/celery --app kodna.celery worker --loglevel WARNING

beat: .venv/run
	@exec $(BIN)/celery --app kodna.celery beat --loglevel WARNING

# Three for two cores: many of them wait for something. Whole files, in the order of their names: else those with few
# tests, which are the long ones, come last.
AT_A_TIME := -n 3 --dist loadfile --no-loadscope-reorder
# The browser sees no difference, the others have no test of the database: they would only be imported.
NOT_ON_SQLITE := $(addprefix --ignore=tests/,browser agents clients conformance proxy/formats sdk)

test: .venv/dev
	$(BIN)/python -m pytest $(AT_A_TIME)
	KODNA_TEST_DATABASE=sqlite $(BIN)/python -m pytest $(AT_A_TIME) -m database $(NOT_ON_SQLITE)

check: .venv/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy accounts kodna models_catalog proxy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/python -m pytest -q -p no:cacheprovider tests/test_locale.py -k compiled
	@export KODNA_DATA_DIR=$$(mktemp -d) && $(BIN)/python manage.py makemigrations --check --dry-run \
		&& $(BIN)/python manage.py check --fail-level WARNING; status=$$?; rm -rf "$$KODNA_DATA_DIR"; exit $$status

format: .venv/dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

test-clients: .venv/dev
	$(BIN)/python -m tests.clients.run $(CLIENTS)

test-agents: .venv/dev
	$(BIN)/python -m tests.agents.run $(AGENTS)

test-exact: .venv/dev
	$(BIN)/python -m tests.exact $(or $(EXACT),all)

bench: .venv/dev
	$(BIN)/python -m bench $(BENCH)

# Needs uv. Writes versions and hashes, no addresses.
lock:
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate \
		pyproject.toml -o requirements.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate \
		--constraint requirements.txt --group dev pyproject.toml -o requirements-dev.txt

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache bench/out
