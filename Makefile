# Needs only python3 (3.11 or newer) and make; everything else goes into .venv/ and .cache/ of this folder.

PYTHON ?= python3
BIN := .venv/bin
CODE := src tests demo bench examples scripts
# Many tests wait for real processes: more workers than cores. With four, two cores are too busy for clusters.
WORKERS ?= 3

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-stop test controlplane helm cluster check format bench bench-record hunt bench-judge bench-judge-record bench-adaptive \
	bench-adaptive-record picture lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile

setup: ## Make .venv/ ready (the others do it by themselves)
	@$(PYTHON) scripts/setup.py

demo: setup ## Release a good and a bad version of a real service (never asks with FORGE_DEMO_YES=1)
	@$(BIN)/python demo/run.py

demo-stop: setup ## Stop the dashboard that the demo left open
	@$(BIN)/python demo/dashboard.py stop

test: setup controlplane helm ## Run every test
	@command -v git >/dev/null || { echo 'error: the tests need git; on Debian and Ubuntu: apt install git' >&2; exit 1; }
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal $(TESTS)

controlplane: ## Build the Kubernetes control plane of the tests, where there is Go (once)
	@$(PYTHON) scripts/controlplane.py --if-possible >/dev/null

helm: ## Build the helm of the tests, where there is Go (once)
	@$(PYTHON) scripts/helm.py --if-possible >/dev/null

cluster: setup controlplane ## Run a Kubernetes cluster on this machine, as the tests do, until Ctrl-C (PROMETHEUS=1: one too)
	@PYTHONPATH=tests $(BIN)/python -m cluster.serve .cache/cluster $(if $(PROMETHEUS),--prometheus)

check: setup ## Lint, formatting, types, and who may import whom
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup ## Put the code into its one format
	@$(BIN)/ruff check --fix-only $(CODE)
	@$(BIN)/ruff format $(CODE)

bench: setup ## Measure against the floor, in turn (ratios; a few minutes)
	@$(BIN)/python -m bench

bench-record: setup ## Measure, and write bench/RESULTS.md
	@$(BIN)/python -m bench --record

bench-judge: setup ## False rollbacks and harm of every judge (QUICK=1: under a minute)
	@$(BIN)/python -m bench.judge $(if $(QUICK),--quick)

bench-judge-record: setup ## The same, and write docs/judge-results.md and .svg
	@$(BIN)/python -m bench.judge --record

bench-adaptive: setup ## Adaptive canaries against fixed steps: time and harm (QUICK=1: a few seconds)
	@$(BIN)/python -m bench.adaptive $(if $(QUICK),--quick)

bench-adaptive-record: setup ## The same, and write docs/adaptive-results.md
	@$(BIN)/python -m bench.adaptive --record

hunt: setup ## Hunt for broken invariants over a million simulated decisions
	@$(BIN)/python -m bench.hunt

picture: setup ## Run the demo and draw docs/demo.svg from what it showed
	@$(BIN)/python demo/picture.py

lock: ## Pin the newest versions that pyproject.toml allows
	@$(PYTHON) -m venv .cache/lock && .cache/lock/bin/python -m pip install -q uv==0.13.9
	@.cache/lock/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header -q \
		--group dev pyproject.toml -o requirements.lock

clean: ## Remove what was installed and built here
	rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
