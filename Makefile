# Two commands matter: `make run` and `make test`. Each sets up all it needs.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SCENARIO ?= scenarios/peak.yaml

.DEFAULT_GOAL := help
.PHONY: help run test soak overload lint types bench bench-http clean setup

help:  ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 16

run: $(STAMP)  ## replay the opening minute of Double Eleven (another scenario: make run SCENARIO=scenarios/smoke.yaml)
	$(BIN)/sim run $(SCENARIO)

test: $(STAMP)  ## set up everything and pass the tests
	@.ci/system-packages
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m simulator.warm
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

soak: $(STAMP)  ## 300 random kills under load, about six minutes; passes if every transaction and every yuan is there
	$(BIN)/sim run scenarios/soak.yaml
	$(BIN)/sim run scenarios/soak-tcc.yaml

overload: $(STAMP)  ## ten times what the platform is provisioned for, in each way of being full, about four minutes
	@for mode in refuse block drop_oldest; do \
		$(BIN)/sim run scenarios/overload.yaml --set backend.embedded.overflow=$$mode || exit $$?; done

lint: $(STAMP)  ## ruff, rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy, strict
	$(BIN)/mypy

bench: $(STAMP)  ## what this machine can do, each figure beside a baseline measured in the same run
	@for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python "$$file" || exit 1; done

bench-http: $(STAMP)  ## beside wrk, k6 and Locust against one nginx worker, about five minutes; installs them where it may
	OPENBLAS_NUM_THREADS=1 $(BIN)/python benchmarks/http_side_by_side.py

setup: $(STAMP)  ## only make .venv and install

clean:  ## remove .venv, caches and results
	rm -rf $(VENV) .venv-side-by-side .pytest_cache .mypy_cache .ruff_cache .hypothesis ./*.egg-info results/*/
	find simulator tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@.ci/venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
