# What people and CI type. Bare `make` explains.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= -n 2 --dist loadgroup --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo up down test test-all lint tools docs lock chaos bench-latency bench-btrdb bench-dispatch bench-fairness bench-sandbox bench-storm clean

help:
	@echo "make demo            the whole story on this machine: archive in, handlers run, emails out"
	@echo "make demo FILE=some.zip TAGS=a,b   the same with your own COMTRADE archive"
	@echo "make up / make down  the same stack left running; source .devstack/env to use it"
	@echo "make runtimes        builds a runtime for every Python found here (executor/runtimes/); up, demo and tests use them"
	@echo "make test            all tests (make test-all: the slow ones too)"
	@echo "make lint            ruff, mypy --strict, import-linter"
	@echo "make bench-latency   published event -> handler's first line; writes bench/results/latency.json"
	@echo "make bench-btrdb     ten million points into the development server and back, beside a bare file"
	@echo "make bench-dispatch  events in -> tasks out, beside a bare producer; BENCH_LEDGER=postgresql for the other ledger"
	@echo "make bench-sandbox   sandboxed runs beside a bare fork, RQ, Celery, bubblewrap; writes bench/results/sandbox.json"
	@echo "make bench-fairness  one owner's wait for a slot while another floods with 10,000 slow runs"
	@echo "make bench-storm     a storm of archives from upload to email, beside what docs/sizing.md predicts; bench/results/storm.json"
	@echo "make chaos DURATION=60 SEED=7   kills and stops everything under load; counts what was lost or doubled"
	@echo "make tools           installs Prometheus (Debian, root) and builds Helm (Go) for the slow tests"
	@echo "make engine          sees to a Docker engine (Debian, root) and base images; make engine-stop ends one that it started"
	@echo "make docs            writes docs/metrics.md, api.md, commands.md, runtimes.md, notebook.md, the Grafana board and the chart's topics anew"
	@echo "make release VERSION=6.1.0   gives that version to stations, images, chart and client, keeps the wire, commits, tags"
	@echo "make images          builds the images with Docker (deploy/images/); RUNTIMES=\"py3.8 py3.12\" for the executors, companions for trials"
	@echo "make lock            pins requirements/*.in anew into requirements/*.txt"
	@echo "make lock-runtimes   the same for executor/runtimes/*.txt"
	@echo "make clean           removes .venv, .devstack and .cache"

$(STAMP): requirements/all.txt client/pyproject.toml client/setup.cfg devstack/install
	@PYTHON="$(PYTHON)" devstack/install $(VENV)
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/python -m devstack demo $(if $(FILE),--file "$(FILE)") $(if $(TAGS),--tags "$(TAGS)")

up: $(STAMP)
	@$(BIN)/python -m devstack up

down: $(STAMP)
	@$(BIN)/python -m devstack down

test: $(STAMP)
	@$(BIN)/python -m devstack fetch
	@$(BIN)/python -m pytest -q -m "not slow" $(WORKERS)

tools:
	@devstack/tools
	@devstack/helm >/dev/null

test-all: $(STAMP) tools
	@$(BIN)/python -m devstack fetch
	@$(BIN)/python -m pytest -q -m slow || failed=1; \
	$(BIN)/python -m pytest -q -m "not slow" $(WORKERS) && [ -z "$$failed" ]

lint: $(STAMP)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy .
	@$(BIN)/lint-imports

docs: $(STAMP)
	@$(BIN)/python -m telemetry.document > docs/metrics.md
	@$(BIN)/python -m deploy.grafana.board
	@$(BIN)/python -m devstack.document
	@$(BIN)/python -m deploy.helm.topics

.PHONY: release
release: $(STAMP)
	@$(BIN)/python -m deploy.release $(VERSION)

.PHONY: engine engine-stop
engine:
	@devstack/engine

engine-stop:
	@devstack/engine stop

.PHONY: images
images:
	@deploy/images/build $(RUNTIMES)

lock: $(STAMP)
	@$(BIN)/python -m devstack lock

.PHONY: runtimes lock-runtimes
runtimes: $(STAMP)
	@$(BIN)/python -m devstack runtimes

lock-runtimes: $(STAMP)
	@$(BIN)/python -m devstack runtimes --lock

chaos: $(STAMP)
	@$(BIN)/python -W ignore -m tests.chaos $(if $(DURATION),--duration $(DURATION)) $(if $(SEED),--seed $(SEED))

bench-latency: $(STAMP)
	@$(BIN)/python -m bench.latency

bench-btrdb: $(STAMP)
	@$(BIN)/python -m bench.btrdb

bench-dispatch: $(STAMP)
	@$(BIN)/python -m bench.dispatch

bench-sandbox: $(STAMP)
	@$(BIN)/python -m bench.sandbox

bench-fairness: $(STAMP)
	@$(BIN)/python -m bench.fairness

bench-storm: $(STAMP)
	@$(BIN)/python -m bench.storm

clean:
	rm -rf $(VENV) .devstack .cache
