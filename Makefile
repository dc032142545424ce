# The README's two commands are `make quickstart` and `make test`; each sets up all it needs.
PYTHON ?= python3
VENV ?= .venv
# Where PyTorch's CPU wheels are, asked only when pip's own places have none. On Linux the package index
# itself carries the CUDA build only (several GB).
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# cpu, gpu, or empty: gpu where an NVIDIA driver is loaded.
REC_DEVICE ?= cpu
# Test processes. More than the cores only makes them wait for each other.
JOBS ?= 2
# Arguments for pytest, the quickstart and the benchmarks, e.g. make test ARGS="-k encoder".
ARGS ?=

BIN := $(VENV)/bin
# PYTHONPATH: tools/ and benchmarks/ are run from the tree, they are not installed.
# One thread each: OpenMP threads waiting for a busy core cost more than they bring.
RUN := PYTHONPATH=. OMP_NUM_THREADS=1 $(BIN)/python
TORCH := 2.13.0
export REC_DEVICE
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install quickstart quickstart-offline test test-fast test-gpu lint format bench docs dist clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch first and alone: later steps then find it and take no other build.
$(VENV)/.torch: | $(BIN)/python
ifeq ($(REC_DEVICE),cpu)
	$(BIN)/pip install -q "torch==$(TORCH)+cpu" 2>$(VENV)/torch.log \
	  || $(BIN)/pip install -q "torch==$(TORCH)+cpu" --extra-index-url "$(TORCH_INDEX)" 2>>$(VENV)/torch.log \
	  || $(BIN)/pip install -q "torch==$(TORCH)"
else
	$(BIN)/pip install -q "torch==$(TORCH)"
endif
	@touch $@

$(VENV)/.installed: setup.py pyproject.toml shims/fbgemm-gpu/setup.py | $(VENV)/.torch
	$(BIN)/pip install -q -e ".[test]"
	@touch $@

# The editable install compiles the protos once; this does it again when one changes.
PROTOS := $(wildcard protos/*.proto protos/*/*.proto tools/*/*.proto)
$(VENV)/.protos: $(PROTOS) setup.py | $(VENV)/.installed
	$(BIN)/python setup.py -q protos
	@touch $@

# The same for the kernels in C. Without a compiler it tells so and goes on.
NATIVE := $(wildcard rec/ops/native/*.[ch] rec/ops/*/*.h)
$(VENV)/.native: $(NATIVE) setup.py | $(VENV)/.installed
	$(BIN)/python setup.py -q build_ext --inplace
	@touch $@

install: $(VENV)/.installed $(VENV)/.protos $(VENV)/.native  ## a virtual environment in .venv with everything

quickstart: install  ## train, evaluate, export and predict on MovieLens-1M
	$(RUN) -m tools.quickstart $(ARGS)

quickstart-offline: install  ## the same on generated data whose best possible AUC is known
	$(RUN) -m tools.quickstart --offline $(ARGS)

test: install  ## the whole test suite
	$(RUN) -m pytest -n $(JOBS) --dist loadfile $(ARGS)

test-fast: install  ## without the tests marked slow
	$(RUN) -m pytest -n $(JOBS) --dist loadfile -m "not slow" $(ARGS)

test-gpu: install  ## only the tests that need a GPU
	$(RUN) -m pytest -m gpu $(ARGS)

$(VENV)/.lint: setup.py | $(VENV)/.installed
	$(BIN)/pip install -q -e ".[lint]"
	@touch $@

lint: install $(VENV)/.lint  ## style, types, and imports only downwards
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: install $(VENV)/.lint  ## let ruff mend what it can
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

# Only on the path of the peers' own processes: they are not ours to require.
PEERS := $(VENV)/peers
$(VENV)/.peers: | $(VENV)/.installed
	$(BIN)/pip install -q --target $(PEERS) --no-deps deepctr-torch==0.3.0
	$(BIN)/pip install -q --target $(PEERS) requests
	@touch $@

bench: install $(VENV)/.peers  ## speed against peers and limits (an hour; see benchmarks/README.md)
	$(RUN) -m benchmarks.run --peers-path $(abspath $(PEERS)) $(ARGS)

docs: install  ## docs/reference/ from the comments of protos/
	$(RUN) -m tools.proto_docs

# A wheel to pass on names no file of this machine: the CPU one finds its shim beside itself,
#   pip install --find-links dist 'protorec[cpu]'        or 'protorec[gpu]'
dist: install  ## sdist, wheel and the shim's wheel in dist/
	$(BIN)/pip install -q build
	REC_DEVICE=none $(BIN)/python -m build -o dist .
	$(BIN)/pip wheel -q --no-deps -w dist ./shims/fbgemm-gpu

clean:  ## remove what was built, the virtual environment included
	rm -rf build dist *.egg-info shims/fbgemm-gpu/build shims/fbgemm-gpu/*.egg-info $(VENV)
	find rec/protos tools -name '*_pb2.py*' -delete
