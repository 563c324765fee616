# make study | test | chaos | evidence | official | assay | parity | benchmark | lab | report | base | smollm2 | notebooks | sync | docs | onboarding | lint | browser | clean
# Everything runs in .venv, made from pyproject.toml and constraints.txt. Another interpreter: make study PYTHON=python3.12

PYTHON ?= python3
PARAMS ?= params/cpu.yaml
BENCHMARK ?= alfworld_engine
ENV ?= alfworld
# Where torch comes from, if not from pip's own index: TORCH_INDEX=https://download.pytorch.org/whl/cpu is the build without CUDA
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
# pip gets the same versions everywhere; torch first, so that a wheel for this machine's kind (CPU or CUDA) is chosen alone
# (nothing is compiled ahead: of 25,000 files few are ever imported)
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --progress-bar off --no-compile -c constraints.txt

export PIP_NO_INPUT = 1
# empty: what is imported is compiled once and kept; where it was set, every process compiled torch and transformers anew
export PYTHONDONTWRITEBYTECODE =
export TOKENIZERS_PARALLELISM = false
# threads that wait must not spin: with any other work on the machine that makes small models many times slower
export OMP_WAIT_POLICY = PASSIVE

.PHONY: help study test chaos evidence official assay parity benchmark lab report base smollm2 notebooks docs onboarding sync lint browser clean
.DEFAULT_GOAL := help

help:
	@echo "make study    run the whole study (every notebook and the report) with $(PARAMS) into outputs/"
	@echo "make evidence  train what is missing of params/regimes/tight.yaml: recipes over many seeds, hours on every core, resumable;"
	@echo "              ARGS='--scheduler tcp://10.0.0.1:8786' has Dask's workers train, on many machines (docs/how-to/cluster.md)"
	@echo "make official DATA=FOLDER  from nothing to an agent that plays ALFWorld's own games: 45 minutes, resumable"
	@echo "make assay RECIPE=mine.yaml  judge a recipe, also one of your own, against the controls (about 15 minutes)"
	@echo "make test     install what the tests need and run them"
	@echo "make chaos    kill, fill the disk, run two at once, fuzz and soak (about 20 idle minutes, bounded); ARGS=--short takes 40 seconds"
	@echo "make parity   play hundreds of games on both ALFWorld engines and compare everything (about 40 minutes, resumable)"
	@echo "make benchmark  time both engines side by side and print the ratios (a few minutes);"
	@echo "              BENCHMARK=rollout, update, scoring, iteration, language_model, processes, evidence_workers or inspector (see benchmarks/README.md)"
	@echo "make lab      open JupyterLab on the notebooks"
	@echo "make report   run the report on what outputs/ holds"
	@echo "make base     build the base model of ENV=$(ENV) again"
	@echo "make smollm2  fetch a pre-trained language model of 135 M parameters, for load_policy('smollm2')"
	@echo "make notebooks  execute the committed notebooks again (params/reference.yaml; about 30 minutes)"
	@echo "make docs     build the site into docs/_build/html, without a network (ARGS='-b linkcheck' asks the web)"
	@echo "make onboarding  time a newcomer's path, from a fresh clone to a reward of one's own that is judged (about 20 minutes)"
	@echo "make sync     write the .ipynb halves from the .py halves"
	@echo "make lint     check style"
	@echo "make browser  install Chromium (Debian, as root), for the tests that need a real browser"

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 13) else "sglib needs Python 3.11 or 3.12, and $(PYTHON) is %d.%d: make $(MAKECMDGOALS) PYTHON=python3.11" % v)'
	@echo "Installing into $(VENV): about 200 packages, a few minutes ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	@$(PIP) -e .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	@$(PIP) -e '.[test]'
	@touch $@

study: $(VENV)/installed
	@$(BIN)/python -m sglib study --params $(PARAMS) $(ARGS)

# ARGS=--status prints what is there, ARGS='--only grpo igpo' trains some recipes only, ARGS=--store keeps the cells for a commit,
# ARGS='--scheduler tcp://...' has Dask's workers train
evidence: $(VENV)/installed
	@$(BIN)/python -m sglib evidence $(ARGS)

# DATA is a folder with json_2.1.1/ in it, if not where alfworld-download puts it
official: $(VENV)/installed
	@$(if $(DATA),SGLIB_ALFWORLD_DATA=$(DATA)) $(BIN)/python -m sglib official $(ARGS)

assay: $(VENV)/installed
	@$(BIN)/python -m sglib assay $(RECIPE) $(ARGS)

report: $(VENV)/installed
	@$(BIN)/python -m sglib study --params $(PARAMS) --only 09_report --force

# In CI the browser is fetched too; elsewhere a test that finds none says so and is skipped. ARGS='-n 0' for one process.
test: $(VENV)/installed-test $(if $(CI),browser)
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

# atheris guides one row's inputs by coverage; there is no build of it for every machine
chaos: $(VENV)/installed-test
	@$(PIP) atheris || echo "atheris could not be installed: its row is left out"
	@$(BIN)/python tests/chaos.py $(ARGS)

# Recordings of the reference are kept in outputs/parity; ARGS=--compare-only compares with those alone, in seconds.
parity: $(VENV)/installed-test
	@$(BIN)/python tests/parity.py $(ARGS)

benchmark: $(VENV)/installed
	@$(BIN)/python benchmarks/$(BENCHMARK).py $(ARGS)

# The server's root is the repository, so that it reads the pairing rules in pyproject.toml.
lab: $(VENV)/installed
	@$(BIN)/jupyter lab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/notebooks $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS)

base: $(VENV)/installed
	@$(BIN)/python -m sglib.training.pretrain --env $(ENV) $(ARGS)

smollm2: $(VENV)/installed
	@$(PIP) gguf
	@$(BIN)/python -m sglib smollm2

notebooks: $(VENV)/installed
	@$(BIN)/python -m sglib study --params params/reference.yaml && $(BIN)/python -m sglib store --params params/reference.yaml

$(VENV)/installed-docs: $(VENV)/installed
	@$(PIP) -e '.[docs]'
	@touch $@

# A warning, such as a link that leads nowhere, is an error.
docs: $(VENV)/installed-docs
	@$(BIN)/python -m sphinx -q -W --keep-going -j 2 -c docs . docs/_build/html $(ARGS)
	@echo "The site: docs/_build/html/index.html"

onboarding: $(VENV)/installed
	@$(BIN)/python tests/onboarding.py $(ARGS)

sync: $(VENV)/installed
	@for notebook in notebooks/[0-9]*.py; do $(BIN)/jupytext --update --to ipynb "$$notebook" || exit 1; done

lint: $(VENV)/installed-test
	@$(BIN)/ruff check .

browser:
	@if command -v chromium >/dev/null; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		echo "Installing Chromium ..."; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null \
		|| echo "Chromium could not be installed: browser tests will be skipped."; \
	else echo "No Chromium here, and no right to install it: browser tests will be skipped."; fi

clean:
	rm -rf $(VENV) build *.egg-info
