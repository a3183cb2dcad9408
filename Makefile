# LPW-SDXL. `make` alone lists the targets; `make serve` and `make test` need nothing else first.
PORT ?= 3000
HOST ?= 127.0.0.1
MODEL ?= sdxl:latest
ADDONS ?=
BACKEND ?=
BASE_PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
CLIENTS := .venv-clients
TRITON := .venv-triton
RUNPOD := .venv-runpod
# An index that has torch for another CUDA; .venv remembers it for `make bundle`. Only its page of torch is
# read: its other packages are older than those we pin. +cu126 sorts higher than PyPI's version.
LAST_TORCH_INDEX := $(shell cat $(BIN)/.torch-index 2>/dev/null)
TORCH_INDEX ?= $(LAST_TORCH_INDEX)
TORCH_WHEELS := $(if $(TORCH_INDEX),$(patsubst %/,%,$(TORCH_INDEX))/torch/)
CHANGES_TORCH := $(subst <$(LAST_TORCH_INDEX)>,,<$(TORCH_INDEX)>)
EMPTY :=
COMMA := ,
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
# Usage tracking off; no hub, ever; uv, which BentoML locks with, looks where pip was told to look.
export BENTOML_DO_NOT_TRACK := True
export HF_HUB_OFFLINE := 1
UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export UV_FIND_LINKS := $(subst $(EMPTY) $(EMPTY),$(COMMA),$(strip $(UV_FIND_LINKS) $(TORCH_WHEELS)))
# What has a target of its own.
APART := not bundle and not container and not slow and not fuzz and not clients and not page and not runpod and not kernels
# Tiny models are quicker on one thread, and tests don't wait for each other's threads.
test test-fast test-thorough test-long test-fuzz test-bundle test-container test-doors test-page test-runpod test-kernels: export OMP_NUM_THREADS ?= 1

# BentoML answers a port that is taken or none with a traceback, or not at all.
define CHECK_PORT
import socket, sys
host, port = sys.argv[1:]
try:
    with socket.create_server((host, int(port))):
        pass
except (OSError, ValueError, OverflowError) as error:
    sys.exit(f"{host}:{port} can't be listened on ({error}); make serve PORT=N takes another")
endef
export CHECK_PORT

.DEFAULT_GOAL := help
.PHONY: anew help install serve test test-fast test-thorough check bundle test-long test-fuzz test-bundle test-container test-doors test-page test-runpod test-kernels test-hostile image bench train-demo docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(BIN)/.runtime ## install what the service needs into .venv; torch from TORCH_INDEX, if that is set

serve: $(BIN)/.runtime ## import the demo model if none is imported yet, and serve MODEL on PORT (3000)
	@models=$$($(BIN)/python model_import.py list model); \
	  [ -n "$$models" ] || models=$$(env -u LPW_SDXL_STORE -u LPW_SDXL_ADDONS $(BIN)/python model_import.py list model); \
	  [ -n "$$models" ] || $(BIN)/python model_import.py demo
	@$(BIN)/python -c "$$CHECK_PORT" "$(HOST)" "$(PORT)"
	@echo "Starting the service on http://$(HOST):$(PORT); Ctrl-C stops it."
	@BENTOML_CONFIG="$(CURDIR)/configuration.yaml" LPW_SDXL_MODEL="$${LPW_SDXL_MODEL:-$(filter-out sdxl:latest,$(MODEL))}" $(BIN)/bentoml serve service:LpwSdxl --host $(HOST) --port $(PORT)

test: check ## install what is missing, then run every check and the tests (eight minutes)
	@echo "Running the tests; some start real servers, so this takes minutes."
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not thorough and $(APART)" $(ARGS)

test-fast: $(BIN)/.development ## run the tests that start no process and take no seconds each (two minutes)
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not processes and not thorough and $(APART)" $(ARGS)

test-thorough: $(BIN)/.development ## run what `make test` leaves out: faults, floods, long tables (a quarter of an hour)
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "thorough and $(APART)" $(ARGS)

check: $(BIN)/.development ## lint, types and the direction of imports
	@$(BIN)/ruff format --check . && $(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

bundle: $(BIN)/.runtime ## build the bento with the model MODEL in it (sdxl:latest, or mounted for none), and ADDONS=lora-a,embedding-b
	@[ "$(MODEL)" != mounted ] || [ -z "$(ADDONS)" ] || { echo "MODEL=mounted takes no ADDONS: a mounted store hides what is in the bento; mount them with the model." >&2; exit 2; }
	@unset LPW_SDXL_STORE LPW_SDXL_ADDONS; tag=mounted; [ "$(MODEL)" = mounted ] || tag=$$($(BIN)/python model_import.py verify $(MODEL) | tail -1) && \
	  echo "Building a bento with $$tag in it; packages are locked, which takes a minute." && \
	  $(BIN)/bentoml build --arg model=$$tag $(if $(ADDONS),--arg addons=$(ADDONS))

image: $(BIN)/.runtime ## build the image IMAGE of the newest bento with docker or podman (BACKEND); models in layers of their own
	@$(BIN)/python deploy/container/layered_image.py lpw_sdxl:latest $(if $(BACKEND),--backend $(BACKEND)) $(if $(IMAGE),--image $(IMAGE))

test-long: $(BIN)/.development ## kill 60 imports at random moments, spoil 1,700 files and read a million prompts (half an hour)
	@$(BIN)/python -m pytest -m slow $(ARGS)

test-fuzz: $(BIN)/.development ## send the service 10,000 requests that schemathesis makes up (a quarter of an hour)
	@$(BIN)/python -m pytest -m fuzz --log-cli-level=INFO $(ARGS)

test-bundle: $(BIN)/.development ## build a bento and serve it from an environment of its own
	@$(BIN)/python -m pytest -m bundle $(ARGS)

test-container: $(BIN)/.development ## build images with podman and run them without a network (root on Debian; installs podman; a quarter of an hour)
	@deploy/container/prepare.sh
	@$(BIN)/python -m pytest -m container --log-cli-level=INFO tests/container $(ARGS)

test-doors: $(BIN)/.development $(CLIENTS)/.installed ## draw through the clients of OpenAI's and A1111's APIs, for Python and Node, in an environment of theirs
	@$(BIN)/python -m pytest -m clients tests/doors $(ARGS)

test-page: $(BIN)/.development ## draw on the page in a real browser (root on Debian; installs chromium; ten minutes)
	@tests/page/prepare.sh $(BIN)/python
	@$(BIN)/python -m pytest -m page tests/page $(ARGS)

test-runpod: $(BIN)/.development $(RUNPOD)/.installed ## serve jobs with RunPod's package, in an environment of its own (minutes)
	@$(BIN)/python -m pytest -m runpod tests/doors/runpod $(ARGS)

test-kernels: $(BIN)/.development $(TRITON)/.installed ## run the GPU kernels in Triton's interpreter, and compile them for five GPUs (minutes)
	@PYTHONPATH="$(CURDIR)/$(TRITON)" TRITON_INTERPRET=1 $(BIN)/python -m pytest -m kernels tests/diffusion/kernels $(ARGS)

test-hostile: $(BIN)/.development ## flood the service at every limit, hold thousands of connections, and double bad texts (an hour)
	@$(BIN)/python benchmarks/hostile.py
	@$(BIN)/python benchmarks/connections.py
	@$(BIN)/python benchmarks/growth.py

bench: $(if $(NAME),$(BIN)/.development) ## measure with the benchmark NAME (options in ARGS); without a name, list them
	@$(if $(NAME),$(BIN)/python benchmarks/$(NAME).py $(ARGS),grep -l __main__ benchmarks/*.py | xargs grep -m1 '"""' | sed -E 's#benchmarks/(.*).py:"""#\1\t#' | expand -t 18)

train-demo: $(BIN)/.development ## train the demo model and its LoRAs anew, on a GPU if there is one (hours on a CPU)
	@$(BIN)/python -m demo.train && $(BIN)/python -m demo.addons

docs: $(BIN)/.development ## write the tables of docs/*.md from the code
	@$(BIN)/python docs/tables.py

clean: ## remove the environment and caches; the model store stays
	rm -rf .venv $(CLIENTS) $(TRITON) $(RUNPOD) .venv-page build *.egg-info src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

$(BIN)/.runtime: requirements.txt pyproject.toml $(if $(CHANGES_TORCH),anew)
	@echo "Installing into .venv (torch and what goes with it; minutes on a first run) ..."
	@$(BASE_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 is needed; BASE_PYTHON=/path/to/python names one")'
	@test -x $(BIN)/python || $(BASE_PYTHON) -m venv .venv
	@$(if $(CHANGES_TORCH),rm -f $@ && $(BIN)/python -m pip uninstall -q -y torch 2>/dev/null)
	@$(BIN)/python -m pip install --progress-bar off -q $(if $(TORCH_INDEX),--find-links $(TORCH_WHEELS)) -r requirements.txt
	@$(BIN)/python -m pip install --progress-bar off -q --no-deps -e .
	@echo "$(TORCH_INDEX)" >$(BIN)/.torch-index
	@touch $@

$(CLIENTS)/.installed: tests/doors/clients/requirements.txt tests/doors/clients/package.json
	@echo "Installing other programs' clients into $(CLIENTS) (a minute) ..."
	@test -x $(CLIENTS)/bin/python || $(BASE_PYTHON) -m venv $(CLIENTS)
	@$(CLIENTS)/bin/python -m pip install --progress-bar off -q -r $<
	@cp tests/doors/clients/package.json $(CLIENTS)
	@PATH="$(CURDIR)/$(CLIENTS)/bin:$$PATH" npm install --prefix $(CLIENTS) --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error || \
	  echo "NOT TESTED: OpenAI's client for Node, which npm could not install." >&2
	@touch $@

# Over .venv, whose packages it sees: what RunPod's package needs changes versions there, and adds
# others (uvloop, httptools) that uvicorn takes where they are.
$(RUNPOD)/.installed: deploy/runpod/requirements.txt $(BIN)/.runtime
	@echo "Installing RunPod's package into $(RUNPOD) (a minute) ..."
	@test -x $(RUNPOD)/bin/python || $(BASE_PYTHON) -m venv $(RUNPOD)
	@echo "import site; site.addsitedir('$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" \
	  >"$$($(RUNPOD)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/below.pth"
	@$(BIN)/python -m pip list --format freeze | grep -i '^opentelemetry' >$(RUNPOD)/constraints.txt
	@$(RUNPOD)/bin/python -m pip install --progress-bar off -q -r $< -c $(RUNPOD)/constraints.txt
	@touch $@

# Beside .venv, whose torch may be a build for CPUs; the versions are those that torch asks for on a GPU.
$(TRITON)/.installed: tests/diffusion/kernels/requirements.txt
	@$(BIN)/python -m pip install --progress-bar off -q --no-deps --upgrade --target $(TRITON) -r $<
	@touch $@

$(BIN)/.development: $(BIN)/.runtime requirements-dev.txt
	@echo "Installing what the tests need ..."
	@$(BIN)/python -m pip install --progress-bar off -q -r requirements-dev.txt
	@touch $@
