PYTHON ?= $(shell command -v python3.11 || command -v python3)
PORT ?= 3303
TEST_PROCESSES ?= 2
DEV_EXTRAS := --extra quantization --extra training --extra parquet --extra dev
IMAGE ?= sa2va-service
DEPLOY := .venv-deploy
SCHEMAS := @kubernetes-models/gateway-api@2.0.0 @kubernetes-models/keda@2.0.0 \
	@kubernetes-models/prometheus-operator@6.0.0 typescript@5.9.3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH := $(shell sed -n 's/^ *"\(torch==[^"]*\)",$$/\1/p' pyproject.toml)
RAY := $(shell sed -n 's/^ray = \["\(.*\)"\]$$/\1/p' pyproject.toml)
COMPILE = $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-package torch --custom-compile-command "make lock" $(LOCK_ARGS)

export BENTOML_DO_NOT_TRACK = True
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help install serve dev test test-browser test-gpu test-ray test-slow test-hostile fuzz test-python coverage lint format types check lock bench \
	evaluate-nano train-nano bento image image-test deploy-test audit sbom \
	licences loadtest rolling dashboard clean

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
	$(BIN)/pytest -m "not gpu and not slow" --numprocesses $(TEST_PROCESSES) --dist loadfile

tests/browser/node_modules/.package-lock.json: tests/browser/package-lock.json
	npm ci --silent --no-audit --no-fund --prefix tests/browser
	@touch $@

test-browser: dev tests/browser/node_modules/.package-lock.json ## the playground in Chromium; needs chromium and npm
	npm run --silent --prefix tests/browser types
	VENV_BIN="$(abspath $(BIN))" npm test --silent --prefix tests/browser

test-gpu: dev ## the tests that need a CUDA device
	$(BIN)/pytest -m gpu

test-slow: dev ## the tests that build a Bento or train
	$(BIN)/pytest -m slow

test-python: ## the engine's and the HTTP edge's tests under another Python (PYTHON=python3.12)
	$(MAKE) dev VENV=$(VENV)-python
	$(VENV)-python/bin/pip check
	$(VENV)-python/bin/pytest -m "not gpu and not slow" tests/engine tests/web

fuzz: dev ## ten minutes of damaged pictures, and ten of damaged requests: nothing but clear errors, nothing over 2 s
	$(BIN)/python -m tests.media.fuzz --seconds 600
	$(BIN)/python -m tests.hostile.fuzz --seconds 600

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
	$(COMPILE) $(DEV_EXTRAS) --constraints requirements/serve.txt --output-file requirements/dev.txt
	echo $(TORCH) | $(BIN)/uv pip compile - --no-config --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
		--constraints requirements/serve.txt $$(sed -n 's/^\([a-z0-9.-]*\)==.*/--no-emit-package \1/p' requirements/serve.txt) \
		--custom-compile-command "make lock" --output-file requirements/cuda.txt $(LOCK_ARGS)
	$(BIN)/uv pip compile requirements/deploy.in --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
		--custom-compile-command "make lock" --output-file requirements/deploy.txt $(LOCK_ARGS)
	(echo "# make lock"; grep -hEv "^ *(#|$$)" requirements/serve.txt requirements/cuda.txt) > requirements/bento.txt

bench: dev ## the service beside the original's manner, and what each stage costs
	$(BIN)/python -m benchmarks.compare
	$(BIN)/python -m benchmarks.stages

evaluate-nano: dev ## the figures of the embedded model's card
	$(BIN)/python -m training.evaluation.evaluate

train-nano: dev ## the embedded model, trained again
	$(BIN)/python -m training.stages.run

bento: dev ## builds a Bento, embedded model included
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/bentoml build

image: ## the image sa2va-service, by docker, podman or buildah (IMAGE, IMAGE_ARGS="--build-arg TORCH=cpu")
	deploy/image/build.sh $(IMAGE) $(IMAGE_ARGS)

$(DEPLOY)/.tools: requirements/deploy.txt tests/deploy/tools.py
	$(PYTHON) -m venv $(DEPLOY)
	$(DEPLOY)/bin/pip install --quiet --no-deps --require-hashes --requirement requirements/deploy.txt
	$(DEPLOY)/bin/python tests/deploy/tools.py
	npm install --silent --no-audit --no-fund --no-package-lock --prefix $(DEPLOY) $(SCHEMAS)
	@touch $@

audit: $(DEPLOY)/.tools ## known vulnerabilities in what is locked, by pip-audit
	$(DEPLOY)/bin/pip-audit --strict --disable-pip --require-hashes --requirement requirements/bento.txt

sbom: $(DEPLOY)/.tools ## build/sbom.json: what the image carries, as CycloneDX
	mkdir -p build
	$(DEPLOY)/bin/cyclonedx-py requirements requirements/bento.txt --pyproject pyproject.toml --output-reproducible \
		--output-format JSON --output-file build/sbom.json

licences: dev $(DEPLOY)/.tools ## docs/licences.md again, after a lock
	(sed '/^|/,$$d' docs/licences.md; $(DEPLOY)/bin/pip-licenses --python $(BIN)/python --from mixed --format markdown \
		--no-version --with-system --packages torch $$(sed -n 's/^\([a-z0-9.-]*\)==.*/\1/p' requirements/serve.txt)) > build/licences.md
	mv build/licences.md docs/licences.md

loadtest: dev ## a short load test of the embedded model, with bounds; build/loadtest.html has its plots
	$(BIN)/python -m loadtest.run

rolling: dev ## two replicas behind nginx are replaced and killed under load; needs nginx
	$(BIN)/python -m benchmarks.rolling

dashboard: dev ## docs/dashboard.png again, from a run under Prometheus
	$(BIN)/python -m benchmarks.dashboard

deploy-test: dev $(DEPLOY)/.tools ## manifests, compose and alerts, by the tools that read them; needs npm and promtool
	PATH="$(CURDIR)/$(DEPLOY)/bin:$$PATH" $(BIN)/pytest tests/deploy/check_deploy.py

image-test: dev ## builds the image for CPUs and runs it; as root, with buildah and debootstrap, without an engine
	$(BIN)/pytest -s tests/deploy/check_image.py

test-ray: dev ## batches over a Ray cluster of this machine; installs Ray (600 MB) into .venv
	$(BIN)/pip install --quiet "$(RAY)"
	$(BIN)/pytest tests/ray/check_ray.py

clean: ## removes what was installed and built
	rm -rf $(VENV) $(VENV)-python build dist *.egg-info .coverage .pytest_cache .ruff_cache
