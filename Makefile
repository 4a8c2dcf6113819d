# `make demo` and `make test` do all their own set-up, in .venv.

VENV := .venv
PYTHON ?= python3
RUN := $(VENV)/bin/python
# Torch computes with all cores; the tests run one process per core instead.
TEST := OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto

.PHONY: demo test slow gpu bench docs clean

demo: $(VENV)/.installed
	$(RUN) -m gadgets demo --folder demo

test: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(TEST) -m "not slow and not gpu"

slow: $(VENV)/.installed $(VENV)/.wandb $(VENV)/.onnx $(VENV)/.docs
	$(TEST) -m "slow and not gpu"

# On a machine with a CUDA device: its tests and benchmarks, and a report of them in gpu-session/.
gpu: $(VENV)/.gpu
	$(RUN) tests/benchmarks/gpu_session.py --minutes 25

bench: $(VENV)/.installed
	@for script in tests/benchmarks/bench_*.py; do \
		echo "== $$script"; $(RUN) $$script || failed="$$failed $$script"; \
	done; test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

$(VENV)/.installed: pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed, $(PYTHON) is older"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "python3 cannot make a virtual environment; on Debian: apt install python3-venv"; exit 1; }
	@echo "Installing PyTorch and the other packages into $(VENV); this takes minutes."
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# Only the slow tests log to Weights & Biases, which brings two dozen packages.
$(VENV)/.wandb: $(VENV)/.installed
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[wandb]'
	touch $@

# Only the slow tests run what is exported as ONNX, by ONNX Runtime.
$(VENV)/.onnx: $(VENV)/.installed
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[onnx]' onnxruntime
	touch $@

$(VENV)/.gpu: $(VENV)/.installed
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[gpu]'
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) demo site build *.egg-info .mypy_cache .ruff_cache
