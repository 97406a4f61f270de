PYTHON ?= $(shell command -v python3.11 || command -v python3)
PORT ?= 3303
VENV := .venv
BIN := $(VENV)/bin

export BENTOML_DO_NOT_TRACK = True

.PHONY: install dev serve test test-gpu test-slow lint types check bench evaluate-nano train-nano bento clean

# torch is asked for by its exact pin before anything that could pull another build of it.
$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch==2.13.0
	@touch $@

$(VENV)/.serve: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.serve pyproject.toml
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

install: $(VENV)/.serve

dev: $(VENV)/.dev

serve: install
	$(BIN)/bentoml serve service:Sa2VA --port $(PORT)

test: dev
	$(BIN)/pytest -m "not gpu and not slow"

test-gpu: dev
	$(BIN)/pytest -m gpu

test-slow: dev
	$(BIN)/pytest -m slow

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: dev
	$(BIN)/pyright

check: test lint types

bench: dev
	$(BIN)/python -m benchmarks.compare
	$(BIN)/python -m benchmarks.stages

evaluate-nano: dev
	$(BIN)/python -m training.evaluate

train-nano: dev
	$(BIN)/python -m training.run

bento: dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/bentoml build

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
