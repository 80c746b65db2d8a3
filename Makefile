# SPDX-License-Identifier: Apache-2.0
# `make` lists what there is. All of it needs only Python and make; pip gets the rest.

PYTHON  ?= python3
NEWEST  := 3.3.2
OLDEST  := 2.11.2
# The newest pre-release, of a version that will be supported.
NEXT    := 3.4.0b2
ALL     := 3.3.2 3.2.2 3.1.8 3.0.6 2.11.2
LIVE    ?= $(NEWEST)
# For pytest: make unit ARGS="-k name"
ARGS    ?=
# For make soak: how many billed runs; the seed of a soak that is to be repeated
SOAK_RUNS ?= 1000
SEED    ?=
# For make demo: etl, or nothing
DEMO    ?=
BIN      = .venv/airflow-$(NEWEST)/bin
TYPED    = airflow_provider_promptlayer tests dev benchmarks example_dags
SOURCES  = $(TYPED) docs

.DEFAULT_GOAL := help
.PHONY: help demo ui test test-live test-distributed soak bench lint fix types docs coverage unit unit-oldest unit-next \
        unit-all live live-next wheel clean venv tools etl-parts cluster-parts
# Airflows side by side would only fight over the processor and mix up their output.
.NOTPARALLEL:

help: ## | list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | \
	  awk -F ':.*## | *[|] ' '{printf "  make %-16s %-7s %s\n", $$1, $$2, $$3}'
	@echo "The times are those of two cores. The first time, making the environment takes a minute more."

demo: venv $(DEMO:etl=etl-parts) ## 1 min | run an example DAG in a real Airflow against a local PromptLayer; DEMO=etl: with PostgreSQL and S3
	@exec $(BIN)/python -m dev.demo $(DEMO:%=--%)

ui: venv ## | the same, and keep Airflow's web UI up, for a browser, until Ctrl-C
	@exec $(BIN)/python -m dev.demo --ui

# Live tests wait more than they compute: the unit tests take the time that is left over.
test: lint types venv ## 10 min | lint + types, then unit and live tests side by side
	@mkdir -p build
	@nice -n 5 $(MAKE) --no-print-directory unit >build/unit.log 2>&1 & unit=$$!; \
	  $(MAKE) --no-print-directory live; live=$$?; \
	  wait $$unit; unit=$$?; cat build/unit.log; exit $$((live || unit))

test-live: venv etl-parts ## 7 min | crashes, restarts and secrets on PostgreSQL, and the example DAGs there, with S3
	@AIRFLOW_HOME="$(CURDIR)/.venv/airflow-$(NEWEST)/home" $(BIN)/python -m pytest -q tests/live_postgres
	@AIRFLOW_HOME="$(CURDIR)/.venv/airflow-$(NEWEST)/home" $(BIN)/python -m pytest -q tests/live \
	  --postgres -k "TestExamples or hostile or etl"

test-distributed: venv cluster-parts ## 8 min | Celery, Redis and PostgreSQL on two machines, whose cables are cut; needs root for that
	@AIRFLOW_HOME="$(CURDIR)/.venv/airflow-$(NEWEST)/home" timeout 15m $(BIN)/python -m pytest -q tests/distributed $(ARGS)

bench: venv ## 50 min | what waiting costs, against other ways to wait: a table, and build/bench.json
	@$(PYTHON) dev/make_venv.py $(NEWEST) --bench
	@AIRFLOW_HOME="$(CURDIR)/.venv/airflow-$(NEWEST)/home" $(BIN)/python -m benchmarks $(BENCH)

soak: venv cluster-parts ## 3 h | up to a thousand billed runs while parts of a distributed Airflow are killed; SOAK_RUNS=100, SEED=7
	@AIRFLOW_HOME="$(CURDIR)/.venv/airflow-$(NEWEST)/home" $(BIN)/python -m dev.soak \
	  --runs $(SOAK_RUNS) $(SEED:%=--seed %)

lint: tools ## 5 s | ruff: style and mistakes; import-linter: which module may import which
	@$(BIN)/ruff check --quiet $(SOURCES) && $(BIN)/ruff format --quiet --check $(SOURCES)
	@contracts=$$($(BIN)/lint-imports --no-cache 2>&1) || { echo "$$contracts"; exit 1; }
	@echo "lint: clean"

fix: tools ## 1 s | mend what ruff can mend, and format
	@$(BIN)/ruff check --quiet --fix $(SOURCES) && $(BIN)/ruff format --quiet $(SOURCES) && echo "fix: clean"

types: tools ## 40 s | mypy --strict, and on the example DAGs pyright, which editors ask
	@$(BIN)/mypy --no-error-summary $(TYPED)
	@found=$$($(BIN)/basedpyright --pythonpath $(BIN)/python --level error example_dags) || { echo "$$found"; exit 1; }
	@echo "types: clean"

docs: venv ## 20 s | the documentation, as a site in build/docs; warnings are errors
	@$(PYTHON) dev/make_venv.py $(NEWEST) --docs
	@AIRFLOW_HOME="$(CURDIR)/.venv/airflow-$(NEWEST)/home" AIRFLOW__LOGGING__LOGGING_LEVEL=WARNING $(BIN)/python -m sphinx \
	  -q -W --keep-going -d build/doctrees docs build/docs && echo "docs: build/docs/index.html"

coverage: venv tools ## 10 min | unit tests with branch coverage: what no test reaches; fails below the limit of setup.cfg
	@rm -rf build/coverage && mkdir -p build/coverage
	@AIRFLOW_HOME="$(CURDIR)/.venv/airflow-$(NEWEST)/home" $(BIN)/coverage run -m pytest -q tests/unit -n auto --dist worksteal $(ARGS)
	@$(BIN)/coverage combine --quiet && $(BIN)/coverage report

unit: unit-$(NEWEST) ## 5 min | unit tests on Airflow 3.3.2; ARGS="-k name" for some of them

unit-oldest: unit-$(OLDEST) ## 5 min | unit tests on Airflow 2.11.2, the oldest that is supported

unit-next: unit-$(NEXT) ## 5 min | unit tests on Airflow 3.4.0b2, the newest pre-release

unit-all: $(ALL:%=unit-%) ## 25 min | unit tests on every supported Airflow

live: live-$(LIVE) ## 10 min | tests in a real Airflow; LIVE=2.11.2 for another version; ARGS as above

live-next: live-$(NEXT) ## 10 min | tests in a real Airflow 3.4.0b2

wheel: venv tools ## 1 min | build wheel and sdist, install the wheel into an empty environment and check it there
	@$(BIN)/python dev/check_wheel.py $(NEWEST)

clean: ## 1 s | remove what make has made
	@rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

venv: venv-$(NEWEST)

etl-parts: venv
	@$(PYTHON) dev/make_venv.py $(NEWEST) --etl
	@$(BIN)/python -m dev.postgres

cluster-parts: venv
	@$(PYTHON) dev/make_venv.py $(NEWEST) --celery
	@$(BIN)/python -m dev.postgres
	@$(BIN)/python -m dev.redis_server

tools:
	@$(PYTHON) dev/make_venv.py $(NEWEST) --tools

venv-%:
	@$(PYTHON) dev/make_venv.py $*

# Importing Airflow writes an airflow.cfg into AIRFLOW_HOME; it must not be the user's own.
unit-%: venv-%
	@echo "unit tests on Airflow $*"
	@AIRFLOW_HOME="$(CURDIR)/.venv/airflow-$*/home" .venv/airflow-$*/bin/python -m pytest -q tests/unit -n auto --dist worksteal $(ARGS)

live-%: venv-%
	@echo "live tests on Airflow $*"
	@AIRFLOW_HOME="$(CURDIR)/.venv/airflow-$*/home" .venv/airflow-$*/bin/python -m pytest -q tests/live $(ARGS)
