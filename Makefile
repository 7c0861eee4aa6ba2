# Needs only Python ≥ 3.11 and make. Each target installs its requirements into .venv on its first run.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
ARGS ?=

# Compiled Python is kept in .venv, also where the environment wants none beside the sources: each of the many processes
# that the tests start would otherwise compile everything again.
unexport PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX := $(CURDIR)/.venv/pycache

# Most tests wait: two processes for each of two cores keep them busy. Tests with brokers have two processes in all.
UNIT := tests/unit --numprocesses 4 --dist worksteal
KAFKA := tests/kafka --numprocesses 2 --dist worksteal
CHAOS := tests/chaos tests/web --numprocesses 2 --dist loadgroup
SYNC := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)
PARTS := $(MAKE) --no-print-directory --keep-going

.PHONY: help demo check fmt test unit kafka-tests chaos-tests chaos soak bench bench-quick lint types lock pin-images clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/demo ## run a real Kafka and the daemon, and check that no event is lost (ARGS="--events 1000000")
	@$(BIN)/session-consumer demo $(ARGS)

check: .venv/test ## check format, lint, types and run all tests that need no Kafka, in under a minute
	@begun=$$(date +%s); $(PARTS) $(SYNC) --jobs=3 unit types lint; ended=$$?; \
	echo "make check: $$(($$(date +%s) - begun)) s"; exit $$ended

fmt: .venv/test ## format all code, and fix what ruff can fix
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

test: .venv/test ## run all tests, on a real Kafka; with ARGS one pytest with them (ARGS="-k watermark")
ifeq ($(strip $(ARGS)),)
	@begun=$$(date +%s); $(PARTS) --jobs=1 unit kafka-tests chaos-tests; ended=$$?; \
	echo "make test: $$(($$(date +%s) - begun)) s"; exit $$ended
else
	@$(BIN)/python -m pytest $(ARGS)
endif

unit: .venv/test ## the tests that need no Kafka
	@$(BIN)/python -m pytest -q $(UNIT)

kafka-tests: .venv/test
	@$(BIN)/python -m pytest -q $(KAFKA)

chaos-tests: .venv/test
	@$(BIN)/python -m pytest -q $(CHAOS)

chaos: .venv/test ## inject faults of brokers, network and workers, and check every call and commit (MINUTES=10 SEED=7)
	@$(BIN)/python -m tests.chaos $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(ARGS)

soak: .venv/test ## run long with a fault a minute; memory, descriptors and tasks must not grow (MINUTES=30 SEED=7)
	@$(BIN)/python -m tests.chaos.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(ARGS)

bench: .venv/demo ## compare with other consumers, and write bench/RESULTS.md (ARGS="--only table")
	@$(BIN)/python -m bench full $(ARGS)

bench-quick: .venv/demo ## measure the ratios that must not fall, as one JSON object, in under 4 minutes
	@$(BIN)/python -m bench quick

lint: .venv/test ## check rules and format with ruff, and the pinned versions for known vulnerabilities
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/python -m tests.audit

types: .venv/test ## check types with mypy, strict
	@$(BIN)/mypy

lock: .venv/test ## update requirements/*.txt from pyproject.toml
	@for each in "test --extra local --extra test --extra lint --extra otel --extra aws --extra sql --extra parquet" "demo --extra local" "run"; do \
	  set -- $$each; name=$$1; shift; again=; [ $$name = test ] || again="--constraint requirements/test.txt"; \
	  $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    --upgrade --extra build "$$@" $$again --output-file requirements/$$name.txt || exit 1; \
	done

pin-images: .venv/test ## write each image's digest behind its tag in Dockerfile and docker-compose.yml, with docker
	@$(BIN)/python -m tests.images

clean: ## remove .venv and all caches
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "make: $(PYTHON) is older than Python 3.11; choose another with PYTHON=python3.12"; exit 1; }
	@echo "Creating .venv"
	@$(PYTHON) -m venv .venv

# One stamp file per set of requirements. The package is installed in place, so its code is always that of the checkout.
.venv/%: requirements/%.txt pyproject.toml | .venv/bin/python
	@echo "Installing the $$(grep -c == $<) packages of $<: up to a minute when they are not cached"
	@$(PIP) install --require-hashes -r $<
	@echo "Installing session-consumer from this folder"
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@
