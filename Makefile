# make help lists the targets.
PYTHON    ?= $(shell command -v python3.11 || command -v python3 || echo python3)
VENV      ?= .venv
PEERS     ?= .venv-peers
BIN       := $(CURDIR)/$(VENV)/bin
MODEL     ?=
OVERRIDES ?=
Q         ?= What is the capital of Germany?
QUESTION  := $(value Q)
WORKERS   ?= 2
PARALLEL   = --numprocesses $(WORKERS) --no-loadscope-reorder  # tests/scheduling.py says which tests share a process
NAME      ?=
ALIAS     ?=
STORE_URI ?= $(if $(MLFLOW_TRACKING_URI),$(MLFLOW_TRACKING_URI),sqlite:///$(CURDIR)/mlflow.db)
BARE_NAME := $(patsubst models:/%,%,$(NAME))
MLFLOW_RUN := mlflow run . --env-manager local$(if $(MODEL), -P model='$(MODEL)')
CHECK     := python -m steps.check --quiet --store --model '$(MODEL)'
INSTALL   := -m pip install --quiet --disable-pip-version-check
PIP       := $(BIN)/python $(INSTALL)
# the tests run on 3.11; every wheel of requirements.txt is there for 3.12 and 3.13 as well
define REQUIRE_PYTHON
import sys
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit("make: error: $(PYTHON) is Python %d.%d: expected 3.11 (tested), 3.12 or 3.13; install one, or pass PYTHON=/path/to/python3.11" % sys.version_info[:2])
if sys.version_info[:2] != (3, 11):
    sys.stderr.write("make: $(PYTHON) is Python %d.%d: the packages are there for it, but the tests are run on 3.11\n" % sys.version_info[:2])
endef
export REQUIRE_PYTHON
export PATH := $(BIN):$(PATH)
export QUESTION  # through the environment, and as it was typed: a shell would read its quotes, dollars and backticks
unexport Q
# MLflow announces each folder
run sweep: export MLFLOW_LOGGING_LEVEL ?= WARNING

.PHONY: help install run ui ask serve chat docs reference test test-slow test-volume lint format bench bench-short peers sweep lock models clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(VENV)/.run: requirements.txt
	@test -x $(BIN)/python || $(PYTHON) -c "$$REQUIRE_PYTHON"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing requirements.txt into $(VENV) (the first time takes some minutes) …"
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	@echo "installing requirements-dev.txt into $(VENV) …"
	@$(PIP) -r requirements-dev.txt
	@touch $@

install: $(VENV)/.run  ## install what the steps need into .venv

run: $(VENV)/.run  ## run the whole chain: make run [MODEL=Qwen/Qwen2.5-0.5B-Instruct] [OVERRIDES="evaluate=smoke"]
	@$(CHECK) --overrides "$(OVERRIDES)"
	$(MLFLOW_RUN)$(if $(OVERRIDES), -P overrides="$(OVERRIDES)")

ui: $(VENV)/.run  ## open the MLflow UI on the result: make ui [PORT=5001]
	mlflow ui --backend-store-uri "$(STORE_URI)"$(if $(PORT), --port $(PORT))

ask: $(VENV)/.run  ## ask the champion: make ask Q="What is the capital of Germany?" [NAME=my-model] [ALIAS=champion]
	@python -m steps.ask --model '$(MODEL)' $(if $(NAME),--name '$(NAME)') $(if $(ALIAS),--alias '$(ALIAS)') -- "$$QUESTION"

serve: $(VENV)/.run  ## serve the champion by OpenAI's API: make serve [NAME=my-model] [PORT=8000] [OVERRIDES="serve.max_waiting=16"]
	@python -m steps.serve $(if $(MODEL),model='$(MODEL)') $(if $(NAME),"target=models:/$(BARE_NAME)") $(if $(PORT),serve.port=$(PORT)) $(OVERRIDES)

chat: $(VENV)/.run  ## chat with the champion in the terminal: make chat [NAME=my-model] [ALIAS=champion]
	@python -m steps.chat --model '$(MODEL)' $(if $(NAME),--name '$(NAME)') $(if $(ALIAS),--alias '$(ALIAS)')

test: $(VENV)/.dev  ## the tests
	python -m pytest -m "not slow" $(PARALLEL)

test-slow: $(VENV)/.dev  ## the tests that take minutes: environments, git URIs, whole chains, soaks, races
	python -m pytest -m "slow and not models and not volume" $(PARALLEL)

test-volume: $(VENV)/.dev  ## the same soaks, races and kills in full number: 10,000 requests, 200 rounds, every kill
	python -m pytest -m volume $(PARALLEL)

lint: $(VENV)/.dev  ## ruff, mypy and import-linter
	ruff check .
	ruff format --check .
	mypy
	lint-imports --no-logo

format: $(VENV)/.dev  ## format the code
	ruff check --fix .
	ruff format .

$(PEERS)/.installed: benchmarks/peers.txt
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@echo "installing benchmarks/peers.txt into $(PEERS) …"
	@$(PEERS)/bin/python $(INSTALL) -r benchmarks/peers.txt
	@touch $@

peers: $(PEERS)/.installed  ## install what the benchmarks only compare with into .venv-peers

# a peer that cannot be installed is said in the table; the figures of the others are measured
bench: $(VENV)/.dev  ## the benchmarks, side by side, into benchmarks/results.json
	-@$(MAKE) --no-print-directory peers
	python -m benchmarks.run --peers $(PEERS)

bench-short: $(VENV)/.dev  ## little of each benchmark, only to see that they work; without peers, unless they are installed
	python -m benchmarks.run --short --peers $(PEERS)

sweep: $(VENV)/.run  ## compare ONNX builds: one table and a Pareto picture
	@for step in fetch_model log_transformers; do $(MLFLOW_RUN) -e $$step$(if $(OVERRIDES), -P overrides="$(OVERRIDES)") || exit 1; done
	$(MLFLOW_RUN) -e sweep -P overrides="evaluate=sweep $(OVERRIDES)"

COMPILE = pip-compile --quiet --upgrade --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links --no-header --annotation-style=line
lock: $(VENV)/.dev  ## compile requirements*.in to requirements*.txt
	$(COMPILE) -o requirements.txt requirements.in
	sed -i -E 's/^([A-Za-z0-9_.-]+==[^ +]+)\+[a-z0-9.]+/\1/' requirements.txt  # a local build (torch +cpu) is the index's choice, not the lock's
	$(COMPILE) -o requirements-dev.txt requirements-dev.in

models: $(VENV)/.dev  ## write docs/models.md: every family through the steps, and the known gaps
	@python -m tests.families.matrix > docs/models.md.new && mv docs/models.md.new docs/models.md

reference: $(VENV)/.dev  ## write docs/configuration.md: every key of the config
	@python -m steps.config.reference > docs/configuration.md.new && mv docs/configuration.md.new docs/configuration.md

docs: $(VENV)/.dev  ## build the documents as a site into build/site; needs no network
	@NO_MKDOCS_2_WARNING=1 mkdocs build --quiet
	@echo "look:  $(CURDIR)/build/site/index.html"

clean:  ## remove caches, keep .venv and mlflow.db
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis outputs build
