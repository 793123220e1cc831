# The project's commands; `make help` lists them. A machine with make and Python is enough: .venv is built when missing
# and brought up to date when pyproject.toml or constraints.txt changes.

# Tried in this order; `make setup PYTHON=/path/to/python` tries that one only.
PYTHON ?= python3 python3.13 python3.12 python3.11
# One more package index, e.g. the one that PyTorch's "Get started" page gives for Linux, Pip, CPU.
TORCH_INDEX ?=
# What `make tutorial` runs on: a data source or folder, and a model. Empty: phantoms, and the light mobile-sam.
DATA =
MODEL =

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed.stamp
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
TUTORIAL := build/html

# Torch's threads wait asleep, not spinning: 18 s become 20, and beside a busy neighbour 31 become 21.
export OMP_WAIT_POLICY ?= PASSIVE

.DELETE_ON_ERROR:
.PHONY: help setup tutorial site outputs results test test-browser test-gpu test-hub coverage mlops lab lint fix bench campaign clean

help:  ## list these commands (the default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  make tutorial DATA=FOLDER MODEL=NAME   on your images/ and masks/, and on another model (DATA=kvasir, say)"
	@echo "  make setup TORCH_INDEX=URL             on Linux without a GPU, the first time: saves gigabytes of CUDA;"
	@echo "                                         the selector on PyTorch's Get started page gives the URL"

setup: $(INSTALLED)  ## build .venv with everything in it, at the tested versions

tutorial: $(INSTALLED)  ## the main job: run every notebook, and build the course as a site in build/html
	$(BIN)/python tools/build_series.py --output $(TUTORIAL) $(if $(DATA),--data '$(DATA)') $(if $(MODEL),--model '$(MODEL)')

site: $(INSTALLED)  ## the same site from the outputs that are stored in the notebooks: runs nothing
	$(BIN)/python tools/build_series.py --output $(TUTORIAL) --stored

outputs: $(INSTALLED)  ## run every notebook and store its outputs in place, for a commit; tells the minutes of each
	$(BIN)/python tools/store_outputs.py

results: $(INSTALLED)  ## write RESULTS.md and the table of README.md anew from notebooks/results
	$(BIN)/python tools/results.py

test: $(INSTALLED)  ## doctests, unit tests and every notebook, cell by cell; two files at a time
	$(BIN)/python -m pytest --nbval --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-browser: $(INSTALLED)  ## the box-prompt demo and the site in a real browser; installs Debian's Chromium where it is missing
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || test -n "$(MEDSAM_CHROMIUM)" || { \
		$(SUDO) apt-get update -q && $(SUDO) apt-get install -y -q --no-install-recommends chromium; } || { \
		echo "Chromium is missing and apt-get cannot install it: install it, or name it in MEDSAM_CHROMIUM." >&2; exit 1; }
	$(BIN)/python -m pytest tests/browser

test-gpu: $(INSTALLED)  ## on a CUDA device: the CPU's answers in each precision, resuming, memory, notebooks 00, 04, 05
	$(BIN)/python -c 'import torch, sys; sys.exit(None if torch.cuda.is_available() else "no CUDA device: nothing was tested")'
	$(BIN)/python -m pytest tests -m cuda

test-hub: $(INSTALLED)  ## where the model hub is reached: the pretrained ViT-B's load, predict and train
	$(BIN)/python -m pytest tests -m hub

coverage: $(INSTALLED)  ## the share of the package's lines that doctests and unit tests run, module by module
	$(BIN)/python -m pytest medsam_helpers tests -m 'not browser' --numprocesses 2 --dist loadfile --cov=medsam_helpers

mlops: $(INSTALLED)  ## start the MLflow server on this machine and print its address; ^C stops it, nothing is lost
	$(BIN)/python -m medsam_helpers.mlops.server

lab: $(INSTALLED)  ## open JupyterLab on the first notebook
	$(BIN)/jupyter lab --notebook-dir notebooks --LabApp.default_url=/lab/tree/00_start_here.ipynb

lint: $(INSTALLED)  ## check style (notebooks included), the rules of the notebooks, who imports whom, and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/notebook_rules.py
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

fix: $(INSTALLED)  ## mend what lint can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)  ## run the benchmarks; one line of JSON each
	@for script in $$(grep -ls '^# make bench:' benchmarks/*.py); do \
		$(BIN)/python $$script $$(sed -n 's/^# make bench: *//p' $$script) || exit 1; \
	done

campaign: $(INSTALLED)  ## damaged files, nonsense settings, kills and hostile requests: what was tried, what went wrong
	$(BIN)/python tools/campaign.py

clean:  ## remove .venv, caches and build/; your runs and the downloaded checkpoints stay
	rm -rf $(VENV) build *.egg-info .coverage .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# `--clear` because a .venv without a working Python (an interrupted build, an upgraded system) is of no use.
$(BIN)/python:
	@for python in $(PYTHON); do \
		$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || continue; \
		echo "Building $(VENV) with $$($$python --version)"; \
		$$python -m venv --clear $(VENV) && exit 0; \
		rm -rf $(VENV); exit 1; \
	done; \
	echo "This project needs Python 3.11, 3.12 or 3.13; none of these is one: $(PYTHON)." >&2; \
	echo "Install one, or name it: make setup PYTHON=/path/to/python3.12" >&2; \
	exit 1

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e '.[all]' $(if $(TORCH_INDEX),--extra-index-url '$(TORCH_INDEX)')
	@touch $@
