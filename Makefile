# The first `make train` or `make test` sets up what it needs; later ones start at once.
VENV ?= .venv
PYTHON ?= python3
ARGS ?=
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.segpets-installed

.DEFAULT_GOAL := help
.PHONY: prove-resume fuzz help setup train test test-all check browse doctor compare tensorboard benchmark benchmark-data docs clean evaluate latency notebooks export predict bench results reproduce

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20
	@echo
	@echo '  ARGS="model=segnet loss=soft_iou" passes overrides, VENV=... chooses the environment,'
	@echo '  PYTHON=... the interpreter that makes it'

setup: $(INSTALLED)  ## make the environment in .venv (or VENV=...) and install segpets with its extras

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'segpets needs Python 3.11 or newer: set PYTHON=... to one'; exit 1; }
	@echo 'Setting up $(VENV), which takes a minute or two'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo 'python3 -m venv failed: on Debian and Ubuntu, apt install python3-venv'; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all,dev]'
	@touch $@

# What only some targets need.
$(VENV)/.segpets-docs $(VENV)/.segpets-notebooks: $(VENV)/.segpets-%: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

train: setup  ## train the default model on the embedded images
	$(BIN)/python -m segpets.train $(ARGS)

test: setup  ## run the tests that take less than 6 minutes on two cores; the 15 slowest are listed
	$(BIN)/python -m pytest -n auto --dist worksteal --durations=15 -m 'not slow and not gpu' $(ARGS)

test-all: setup  ## run all tests; pages are opened in Chromium (apt install chromium)
	$(BIN)/python -m pip install --quiet --editable '.[all,dev,docs,notebooks,ray]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m 'not gpu' $(ARGS)

check: setup  ## format, lint, types and spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell

browse: setup  ## show the data: contact sheets, augmentation, classes, in one HTML page
	$(BIN)/python -m segpets.browse $(ARGS)

doctor: setup  ## say what is wrong with the data
	$(BIN)/python -m segpets.browse doctor=true $(ARGS)

compare: setup  ## rank runs and test their differences: ARGS="runs=logs/train/multiruns/first"
	$(BIN)/python -m segpets.compare $(ARGS)

evaluate: setup  ## measure a trained model in full: ARGS="run=DIR", or the latest run
	$(BIN)/python -m segpets.evaluate $(if $(findstring run=,$(ARGS)),,run=latest) $(ARGS)

notebooks: setup $(VENV)/.segpets-notebooks  ## run the notebooks, about 8 minutes, and write them to docs/notebooks as HTML
	$(BIN)/python scripts/notebooks.py $(ARGS)

export: setup  ## write a run's model as ONNX, checked: ARGS="run=latest format=onnx_int8"
	$(BIN)/python -m segpets.export $(ARGS)

predict: setup  ## predict pictures: ARGS="run=latest source=photos output=predicted"
	$(BIN)/python -m segpets.predict $(ARGS)

tensorboard: setup  ## compare runs in TensorBoard
	$(BIN)/tensorboard $(if $(findstring logdir,$(ARGS)),,--logdir_spec runs:logs/train/runs,sweeps:logs/train/multiruns) $(ARGS)

latency: setup  ## measure what a model costs and how fast it is: ARGS="model=segnet" or ARGS="run=latest"
	$(BIN)/python -m segpets.benchmark $(ARGS)

benchmark: setup  ## measure the training loop against a bare PyTorch loop
	$(BIN)/python benchmarks/train_step.py $(ARGS)

bench: setup  ## measure steps and whole epochs against what one would take instead, an hour or so, into build/bench: STEPS="--rounds 3" ARGS="--images 360"
	@mkdir -p build/bench
	$(BIN)/python benchmarks/train_step.py --json build/bench/steps.json $(STEPS)
	$(BIN)/python benchmarks/epochs.py --json build/bench/epochs.json $(ARGS)

results: setup  ## train rows of docs/RESULTS.md that are missing: BUDGET=3h ARGS="--root FOLDER"
	$(BIN)/python scripts/results.py $(if $(BUDGET),--budget $(BUDGET)) $(ARGS)

reproduce: setup  ## train a row of docs/RESULTS.md: ROW=efficient ARGS="--root FOLDER"
	$(BIN)/python scripts/results.py --row $(or $(ROW),make_train) $(ARGS)

prove-resume: setup  ## kill trainings at random moments, resume them, compare with undisturbed ones: ARGS="--kills 30"
	$(BIN)/python scripts/prove_resume.py $(ARGS)

fuzz: setup  ## give mutated files to every reader: SECONDS=600
	$(BIN)/python scripts/fuzz.py --seconds $(or $(SECONDS),600) $(ARGS)

benchmark-data: setup  ## measure reading and augmenting against the article's and torchvision's way
	$(BIN)/python benchmarks/data.py $(ARGS)

docs: setup $(VENV)/.segpets-docs  ## build the documentation to build/site, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo 'open build/site/index.html'

clean:  ## remove the environment and caches; logs/ stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist
