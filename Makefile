# Every target does its own set-up: a fresh clone and a Python between 3.11 and 3.13 are enough.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet
# Whoever runs one test: make test PYTEST_ARGS="tests/policy -k bundle"
PYTEST_ARGS ?=

.PHONY: help setup demo debug check test lint audit bench bench-serving robustness fuzz faults control-plane test-chart \
  test-pages docs screenshots newcomer test-kind proof reference train evaluate evaluation-tables pins clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "need Python 3.11, 3.12 or 3.13, found $$($(PYTHON) --version 2>&1); set PYTHON=..." >&2; exit 1; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# The stamps order the installs: serving alone is enough for the demo; the rest is a superset with the same pins.
$(VENV)/.serving: requirements/serve.txt requirements/build.txt pyproject.toml | $(BIN)/python
	@echo "installing the serving requirements"
	@$(PIP) --require-hashes -r requirements/build.txt
	@$(PIP) --require-hashes -r requirements/serve.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

# pip says "No space left on device" only after minutes of downloads; torch's CUDA libraries are most of it.
NEEDED_GIB := 12

$(VENV)/.everything: requirements/test.txt $(VENV)/.serving
	@test -e $(BIN)/pytest || { free=$$(df -Pk . | awk 'NR == 2 { print int($$4 / 2^20) }'); \
	  test "$$free" -ge $(NEEDED_GIB) || { echo "need $(NEEDED_GIB) GiB free in $(CURDIR) to install torch and the rest," \
	  "found $$free GiB" >&2; exit 1; }; }
	@echo "installing the training, test and development requirements"
	@$(PIP) --require-hashes -r requirements/test.txt
	@touch $@

setup: $(VENV)/.everything ## Make .venv with everything: serving, training, tests, linters

demo: $(VENV)/.serving ## Serve a simulated cluster with the shipped policy, live (DEMO_SECONDS=60 to stop by itself)
	@$(BIN)/maddpg-extender demo

KUBECONFIG ?= $(HOME)/.kube/config
BREAK      ?=
SERVE_ARGS ?=

debug: $(VENV)/.serving ## Serve the cluster of KUBECONFIG under pdb; BREAK=extender/engine.py:158 SERVE_ARGS="--port 9999"
	@$(BIN)/python -m pdb $(if $(BREAK),-c "break $(BREAK)") -c continue -m extender serve \
	  --kubeconfig $(KUBECONFIG) --log-format console $(SERVE_ARGS)

# Tests that start control planes, clusters or measurements, one at a time: they share servers, ports, caches and cores.
APART := tests/control_plane tests/chart tests/kind tests/bench tests/pages
# One process per core for all others, file by file, so that what a file sets up is made once.
PARALLEL := -n $(shell nproc) --dist loadfile
PYTEST := $(BIN)/python -m pytest
COVERAGE := --cov --cov-report=term --cov-report=xml:build/coverage.xml

test: lint ## Everything that proves the project, the real control plane included
ifeq ($(PYTEST_ARGS),)
	@failed=0; \
	$(PYTEST) $(PARALLEL) $(APART:%=--ignore=%) --cov --cov-report= tests || failed=1; \
	$(PYTEST) $(COVERAGE) --cov-append $(APART) || failed=1; \
	exit $$failed
else
	@$(PYTEST) $(COVERAGE) $(PYTEST_ARGS)
endif

# The quick tests: rooms whose tests take tenths of a second, without the files that take seconds. What they leave out,
# `make test` runs.
QUICK := tests/policy tests/extender/protocol tests/extender/cluster tests/extender/scorer tests/training/simulator \
  $(wildcard tests/test_*.py)
SLOW := tests/extender/cluster/test_following.py tests/extender/cluster/test_kubelets.py tests/extender/protocol/test_bad_input.py \
  tests/extender/scorer/test_reload.py tests/extender/scorer/test_trust.py tests/test_foreign_classes.py \
  tests/training/simulator/test_knowledge.py tests/training/simulator/test_properties.py tests/training/simulator/test_warmup.py

check: $(VENV)/.everything ## Format, lint, types, import contracts and the quick tests: before each commit
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/ruff check --quiet
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(PYTEST) --quiet $(PARALLEL) $(QUICK) $(SLOW:%=--ignore=%)

lint: $(VENV)/.everything ## Format, lint, types, import contracts and what bandit finds insecure
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/bandit --quiet --recursive --configfile pyproject.toml extender policy training helm deploy

# Apart from lint: it asks a database on the network, and answers "nothing found" only if every package was looked up.
audit: $(VENV)/.everything ## Look for known vulnerabilities of everything pinned; fails on findings, and without its database
	@echo "asking the vulnerability database about requirements/test.txt"; report=$$(mktemp); trap 'rm -f $$report' EXIT; \
	if $(BIN)/pip-audit --strict --disable-pip --require-hashes --progress-spinner off -r requirements/test.txt \
	  >$$report 2>&1; then cat $$report; \
	elif grep -qE 'could not be audited|not found on PyPI|ConnectionError|ServiceError|ConnectTimeout' $$report; then \
	  tail -n 3 $$report >&2; \
	  echo "audit: the vulnerability database cannot be reached from here, so nothing is known; try again elsewhere" >&2; \
	  exit 2; \
	else cat $$report >&2; exit 1; fi

bench: $(VENV)/.everything ## The short part of bench-serving: the actor, the verbs over HTTP and the simulator, about two minutes
	@$(BIN)/python -m tests.bench.serving actor
	@$(BIN)/python -m tests.bench.serving latency
	@$(BIN)/python -m tests.bench.serving simulator

bench-serving: $(VENV)/.everything ## What serving must show, against a do-nothing extender; writes build/bench-serving.json
	@$(BIN)/python -m tests.bench.serving

robustness: $(VENV)/.everything ## Ask every endpoint far more odd requests than make test does, other ones each time
	@ROBUSTNESS_EXAMPLES=$${ROBUSTNESS_EXAMPLES:-1000} $(BIN)/python -m pytest --timeout=3600 \
	  tests/extender/operations/test_api_description.py tests/extender/transport/test_odd_http.py $(PYTEST_ARGS)

FUZZ_SECONDS ?= 300
fuzz: $(VENV)/.everything ## Fuzz every decoder of bytes from outside for FUZZ_SECONDS (300); writes build/fuzz
	@$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

faults: $(VENV)/.everything ## Every fault under load from a real kube-scheduler, about ten minutes; make test has the short ones
	@FAULTS=1 $(BIN)/python -m pytest tests/control_plane/test_faults.py tests/control_plane/test_outage.py $(PYTEST_ARGS)

control-plane: $(VENV)/.everything ## Build (once) etcd, kube-apiserver, kube-scheduler, KWOK and the rest for the tests
	@$(BIN)/python -m tests.control_plane.binaries

test-chart: $(VENV)/.everything ## The chart and the image alone: helm, kubeconform, a real API server, a real Prometheus
	@$(BIN)/python -m pytest tests/chart $(PYTEST_ARGS)

test-pages: $(VENV)/.everything ## The dashboard in a real Chromium; writes build/pages.json and screenshots to build/pages
	@$(BIN)/python -m pytest tests/pages $(PYTEST_ARGS)

docs: $(VENV)/.everything ## The documents as pages, with the API and Python references; writes build/docs/VERSION
	@$(BIN)/python -m tests.documents.site

screenshots: $(VENV)/.everything ## Write the documents' screenshots of the dashboard, from a simulated cluster, to docs
	@$(BIN)/python -m tests.pages.screenshots

newcomer: $(VENV)/.everything ## Clone, make demo, explain, in an empty folder; writes what it took to build/newcomer.json
	@$(BIN)/python -m tests.newcomer

test-kind: $(VENV)/.everything ## The chart on a real kind cluster, the image really built; root, or a Docker Engine, is needed
	@KIND=1 $(BIN)/python -m pytest tests/kind $(PYTEST_ARGS)

PROOF_ARGS ?=
proof: $(VENV)/.everything ## Beside kube-scheduler alone on real containers, an hour on a quiet machine; writes docs/evidence
	@$(BIN)/python -m tests.proof $(PROOF_ARGS)

reference: $(VENV)/.everything ## Write the tables of docs/operations.md, and the chart's schema and table of values
	@$(BIN)/maddpg-extender reference --write docs/operations.md
	@$(BIN)/python -m helm.reference

train: $(VENV)/.everything ## Train the policy that ships, as its model card says; writes runs/default
	@$(BIN)/maddpg-train run --config training/configs/default.yaml --seeds 1-5 --threads 1 --out runs/default

# What is committed: make evaluate EVALUATION=policy/models/default TRACE=FILE, with the openb file, which does not ship.
EVALUATION ?= build/evaluation
TRACE      ?=

evaluate: $(VENV)/.everything ## Play the frozen suite with the policies here and every rule; writes build/evaluation
	@$(BIN)/maddpg-train report policy/models/default $(addprefix --also ,$(wildcard training/models)) \
	  $(addprefix --trace ,$(TRACE)) $(addprefix --scale ,$(wildcard docs/scale/outcome.json)) \
	  --ablations docs/ablations/ablations.json --out $(EVALUATION)

evaluation-tables: $(VENV)/.everything ## Put the committed report's headline into README and model card
	@$(BIN)/maddpg-train headline policy/models/default README.md policy/models/default/MODEL_CARD.md

# --no-strip-extras: pip before 23.3 takes coverage[toml] for another package than a pinned coverage, and would take its newest.
pins: $(VENV)/.everything ## Resolve requirements/*.txt again from pyproject.toml
	@export UV_CUSTOM_COMPILE_COMMAND="make pins"; \
	COMPILE="$(BIN)/uv pip compile --quiet --universal --upgrade --no-strip-extras --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --python-version 3.11"; \
	$$COMPILE pyproject.toml --extra train --extra ray --extra docs --extra test --extra dev -o requirements/test.txt; \
	$$COMPILE pyproject.toml -c requirements/test.txt -o requirements/serve.txt; \
	$$COMPILE pyproject.toml -c requirements/test.txt --extra train -o requirements/train.txt; \
	$$COMPILE pyproject.toml -c requirements/test.txt --extra train --extra ppo -o requirements/ppo.txt; \
	$$COMPILE --group build -o requirements/build.txt

clean: ## Remove what the other targets made here (the cache of control plane binaries stays)
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
