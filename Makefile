# Everything a developer runs. `make help` lists it. The environment lives in .venv and is made on first use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
# Side by side, one thread each; what starts a service or a browser needs the machine for itself.
QUICK := OMP_NUM_THREADS=1 $(PYTEST) --durations=10 -n auto --maxprocesses 4 --dist worksteal -m 'not service and not browser and not long and not vllm'
SERVED := $(PYTEST) --durations=30 -m '(service or browser) and not long and not vllm'

.DEFAULT_GOAL := help
.PHONY: help install demo up test quick-test long-test gpu-test vllm-test chaos mutants fuzz audit lint format types walls docs lab-docs screenshots check bench bench-demo bench-service bench-api bench-telemetry bench-dashboard bench-loss bench-small bench-throughput bench-scoring bench-credit smoke clean

help:  ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.run: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "opd needs Python 3.11 or newer; try: make demo PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[all]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@

install: $(VENV)/.dev  ## make the environment with everything a developer needs

demo: $(VENV)/.run  ## start the service, distil the demo student, show it in the browser
	$(BIN)/opd demo

up: $(VENV)/.run  ## start the service and wait for jobs
	$(BIN)/opd up

test: $(VENV)/.dev  ## all tests (those that need Chromium are skipped without it)
	$(QUICK)
	$(SERVED)

quick-test: $(VENV)/.dev  ## tests that start no service and no browser
	$(QUICK)

long-test: $(VENV)/.dev  ## the full forms: every recipe until it has taught something, two machines, every page in the dark theme
	$(PYTEST) -m long

gpu-test: $(VENV)/.dev  ## on a machine with a GPU: the recorded decoding step, the chunked head, every recipe in bfloat16
	$(PYTEST) tests/gpu tests/training tests/rollout tests/teachers

VLLM_ENV ?= .venv-vllm
vllm-test: $(VENV)/.dev  ## a real vLLM on the CPU as teacher and as writer of rollouts; 3 GB in VLLM_ENV=.venv-vllm, minutes
	$(BIN)/python -m tests.vllm.environment $(VLLM_ENV)
	OPD_TEST_VLLM_ENV=$(abspath $(VLLM_ENV)) $(PYTEST) -m vllm tests/vllm

CHAOS ?= --faults 300 --jobs 30 --setup embedded
chaos: $(VENV)/.dev  ## real jobs under 300 faults and a checker over what they leave; CHAOS='--faults N --jobs N --seed S'
	$(BIN)/python -m tests.chaos.run $(CHAOS)

mutants: $(VENV)/.dev  ## break the objective and the loop line by line: every breakage must turn a test red
	$(BIN)/python tests/mutation/run.py

fuzz: $(VENV)/.dev  ## at least 20,000 generated requests to the whole API, alone and in sequences; a few minutes
	$(BIN)/python -m tests.fuzz.run

audit: $(VENV)/.dev  ## known holes in the installed versions, where PyPI can be reached
	.ci/audit

lint: $(VENV)/.dev  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev  ## let ruff format and fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev  ## mypy, strict
	$(BIN)/mypy

walls: $(VENV)/.dev  ## the layer walls of the house
	$(BIN)/lint-imports

docs: $(VENV)/.dev  ## write docs/spec.md and docs/recipes.md from the code's own models
	$(BIN)/python docs/generate.py

lab-docs: $(VENV)/.dev  ## write docs/lab.md: what every recipe does, by exact enumeration
	$(BIN)/python docs/generate_lab.py

screenshots: $(VENV)/.dev  ## pictures of every page in both themes, over a service that trains; minutes
	$(BIN)/python -m docs.screenshots

check: lint types walls  ## lint, types, walls

bench: bench-demo bench-service bench-telemetry bench-loss  ## all short benchmarks; results go to benchmarks/results

bench-demo: $(VENV)/.dev  ## three seeds of the demo through the whole service, dashboard on
	$(BIN)/python -m benchmarks.demo

bench-service: $(VENV)/.dev  ## from POST to first step, from worker to browser
	$(BIN)/python -m benchmarks.service

bench-api: $(VENV)/.dev  ## a hundred thousand jobs, a hundred requests a second, two hundred viewers, while a job trains
	$(BIN)/python -m benchmarks.api_load

bench-telemetry: $(VENV)/.dev  ## what recording costs, as a ratio
	$(BIN)/python -m benchmarks.telemetry

bench-dashboard: $(VENV)/.dev  ## a large run over the API, a busy page, pages while a job trains
	$(BIN)/python -m benchmarks.dashboard

bench-loss: $(VENV)/.dev  ## memory and time of the chunked head against the dense one; needs 12 GiB
	$(BIN)/python -m benchmarks.loss

bench-small: $(VENV)/.dev  ## the reduced head-to-head table: methods and controls at equal budgets; under 15 minutes
	$(BIN)/python -m benchmarks.head_to_head benchmarks/plans/small.yaml

bench-throughput: $(VENV)/.dev  ## tokens per second beside TRL on the same work, interleaved, telemetry off and on
	$(BIN)/python -m benchmarks.throughput

bench-scoring: $(VENV)/.dev  ## writing and scoring beside plain transformers, and how far both are from the roofline
	$(BIN)/python -m benchmarks.scoring

bench-credit: $(VENV)/.dev  ## temporal credit and its remedies on the demo task, three seeds each; hours
	$(BIN)/python -m benchmarks.credit

smoke: $(VENV)/.dev  ## a tiny job of every recipe through the whole service
	$(BIN)/python -m benchmarks.recipes

clean:  ## remove caches and the environment
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache tests/artifacts
