# The targets a person needs; `make help` lists them. Everything runs in .venv, made from the lock file.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PROTOS := proto/kvproto/v1
ARGS ?=

.PHONY: help install run test unit lint types layers generate check-generated chart e2e torture bench soak mutants lock image clean

help: ## list the targets
	@grep -hE '^[a-z][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

install: $(INSTALLED) ## make .venv from the lock file (every other target does it when needed)

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "KVCluster needs Python 3.11 or later; $$($(PYTHON) --version) found. Set PYTHON=/path/to/python3.11"; exit 2; }
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (once)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: install ## a cluster of local processes from examples/quickstart.yaml, shown at work (ARGS=...)
	@$(BIN)/kvlocal run $(ARGS)

test: install lint types layers check-generated chart unit ## everything that needs no Kubernetes

unit: install ## the tests alone (ARGS="-k name")
	@$(BIN)/python -m pytest -n auto --dist loadgroup $(ARGS)

lint: install ## ruff: lint and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: install ## mypy --strict
	@$(BIN)/mypy

layers: install ## import-linter: who may import whom
	@$(BIN)/lint-imports --no-cache

generate: install ## the code made of the protos, the CRD made of the typed spec
	@PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/python -m grpc_tools.protoc -Iproto --python_out=proto --mypy_out=proto --grpc_python_out=proto --mypy_grpc_out=proto $(PROTOS)/*.proto 2>/dev/null
	@$(BIN)/python -m kvoperator.crd > crds/kvclusters.yaml
	@cp crds/kvclusters.yaml charts/kvcluster/crds/kvclusters.yaml

check-generated: install ## fail when `make generate` would change something
	@$(BIN)/python -m tests.support.check_generated

chart: install ## helm lint and template, where helm is there
	@$(BIN)/python -m tests.support.check_chart

e2e: install ## the end-to-end tests on the cluster of KUBECONFIG (or kind, or E2E_PLATFORM)
	@$(BIN)/python -m pytest tests/e2e -m e2e --timeout 1200 -s $(ARGS)

torture: install ## real processes and a real ZooKeeper hurt at random for half an hour (ARGS="--seed 7 --rounds 3")
	@$(BIN)/python -m tests.torture $(ARGS)

bench: install ## measure, beside etcd and the bare limits; see docs/benchmarks.md
	@$(BIN)/python -m bench $(ARGS)

soak: install ## simulate until stopped, on all cores; failures are kept in .kvcluster/soak (ARGS="--processes 1")
	@nice $(BIN)/python -m tests.simulation.soak $(ARGS)

mutants: install ## break the code on purpose, one rule at a time: each must be caught (ARGS="name ..."; "name --show": its failing run)
	@nice $(BIN)/python -m tests.simulation.mutants $(ARGS)

image: ## the container image, by docker
	docker build -t kvcluster:dev .

lock: LOCK := uv pip compile -q --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock"
lock: ## renew the lock files: all, what the image runs, what builds the wheel
	$(LOCK) --all-extras --group dev pyproject.toml -o requirements.lock
	$(LOCK) --all-extras --constraint requirements.lock pyproject.toml -o requirements-runtime.lock
	echo hatchling | $(LOCK) --constraint requirements.lock - -o requirements-build.lock

clean: ## remove what the targets made
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .kvcluster
