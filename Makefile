# `make demo` and `make test` do all the set-up themselves; a second run finds everything in place.
# PYTHON picks the interpreter (3.11 or newer): make PYTHON=python3.12 test

PYTHON ?= python3
VENV   := .venv/bin
SETUP  := $(PYTHON) -m setup
ARGS   ?=
CODE    = $(wildcard expert_runner orchestrator setup tests benchmarks examples)

.DEFAULT_GOAL := help
.PHONY: help setup venv docker images orchestrator-image demo test check faults bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-20s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: ## virtual environment, Docker and the sandbox image
	@$(SETUP) venv docker images

venv: ## the virtual environment at .venv with the perstack command
	@$(SETUP) venv

docker: ## a Docker Engine that answers
	@$(SETUP) docker

images: ## the image of the sandboxes
	@$(SETUP) docker images

orchestrator-image: ## the image of the orchestrator, for running perstack itself in a container
	@$(SETUP) docker orchestrator-image

demo: setup ## run a coordinator and two delegates against a scripted model: no API key needed
	@$(VENV)/python examples/demo/demo.py $(ARGS)

test: setup ## run the tests; pick some with ARGS="-k name"
	@$(VENV)/python -m pytest $(ARGS)

check: venv ## format, lint, types, import contracts
	@$(VENV)/ruff format --check $(CODE)
	@$(VENV)/ruff check $(CODE)
	@$(VENV)/mypy $(CODE)
	@$(VENV)/lint-imports

faults: setup ## kill orchestrator and runners, and let the disk fail, at every write (ARGS="--runtime docker --every 5")
	@$(VENV)/python -m tests.faults $(ARGS)
	@PERSTACK_FAULTS=all $(VENV)/python -m pytest -q tests/faults/test_store_faults.py

bench: setup ## measure speed and memory
	@$(VENV)/python -m benchmarks $(ARGS)

clean: ## remove the virtual environment, the caches and the images
	@$(SETUP) clean
