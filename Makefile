PYTHON ?= $(shell command -v python3.11 || command -v python3)
PORT ?= 3303
VENV ?= .venv
BIN := $(VENV)/bin
TORCH := $(shell sed -n 's/^ *"\(torch==[^"]*\)",$$/\1/p' pyproject.toml)
COMPILE = $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-package torch --custom-compile-command "make lock" $(LOCK_ARGS)

export BENTOML_DO_NOT_TRACK = True
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help install serve dev test test-gpu test-slow test-hostile fuzz test-python coverage lint format types check lock bench \
	evaluate-nano train-nano bento clean

# Everything is installed by hash. torch alone, of which each machine takes the build that suits it, comes by its pin:
# last, when all that it needs besides CUDA's own packages is there already.
define install
	$(BIN)/pip install --quiet --no-deps --require-hashes --requirement $(1)
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
endef

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: requirements/serve.txt pyproject.toml | $(BIN)/pip
	$(call install,requirements/serve.txt)
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml | $(BIN)/pip
	$(call install,requirements/dev.txt)
	@touch $@ $(VENV)/.serve

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(VENV)/.serve ## what serving needs, into .venv

serve: install ## serves on http://localhost:3303 (PORT, MODEL_PATH)
	$(BIN)/bentoml serve service:Sa2VA --port $(PORT)

dev: $(VENV)/.dev ## what working on it needs, into .venv

test: dev ## the tests, but for those below
	$(BIN)/pytest -m "not gpu and not slow"

test-gpu: dev ## the tests that need a CUDA device
	$(BIN)/pytest -m gpu

test-slow: dev ## the tests that build a Bento or train
	$(BIN)/pytest -m slow

test-python: ## the engine's and the HTTP edge's tests under another Python (PYTHON=python3.12)
	$(MAKE) dev VENV=$(VENV)-python
	$(VENV)-python/bin/pip check
	$(VENV)-python/bin/pytest -m "not gpu and not slow" tests/engine tests/web

fuzz: dev ## ten minutes of damaged pictures: nothing but clear errors, nothing over 2 s
	$(BIN)/python -m tests.media.fuzz --seconds 600

test-hostile: dev ## attacks on a real service, with the figures that a quiet machine reaches
	HOSTILE_STRICT=1 $(BIN)/pytest tests/hostile

coverage: dev ## the tests again, with a floor under the branches that they take
	$(BIN)/coverage run -m pytest -m "not gpu and not slow"
	$(BIN)/coverage report

lint: dev ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: dev ## ruff, which also mends
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: dev ## pyright
	$(BIN)/pyright

check: test lint types ## what a change has to pass

lock: dev ## requirements/ again after pyproject.toml changed (LOCK_ARGS=--upgrade for newer releases)
	$(COMPILE) --output-file requirements/serve.txt
	$(COMPILE) --all-extras --constraints requirements/serve.txt --output-file requirements/dev.txt
	(echo "# make lock"; echo $(TORCH); grep -Ev "^ *(#|$$)" requirements/serve.txt) > requirements/bento.txt

bench: dev ## the service beside the original's manner, and what each stage costs
	$(BIN)/python -m benchmarks.compare
	$(BIN)/python -m benchmarks.stages

evaluate-nano: dev ## the figures of the embedded model's card
	$(BIN)/python -m training.evaluate

train-nano: dev ## the embedded model, trained again
	$(BIN)/python -m training.run

bento: dev ## builds a Bento, embedded model included
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/bentoml build

clean: ## removes what was installed and built
	rm -rf $(VENV) $(VENV)-python build dist *.egg-info .coverage .pytest_cache .ruff_cache
