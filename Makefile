# Everything runs in .venv, which the first target that needs it creates from pinned packages.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup test test-slow lint format clean build
.DELETE_ON_ERROR:

help: ## Print the targets, one line each
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## Create .venv from the pinned packages (done once, redone when the pins change)

$(VENV)/.installed: build/requirements.txt build/constraints.txt clients/python/pyproject.toml
	@$(PYTHON) build/check_system.py
	@echo "Setting up $(VENV): a few minutes, once"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet --progress-bar on --disable-pip-version-check \
		-r build/requirements.txt -e clients/python
	@touch $@

test: setup ## Run the tests: unit tests, and all of the pipeline on a real tritonserver
	$(RUN) -m pytest

test-slow: setup ## Run the slow tests too: the full-size models
	$(RUN) -m pytest -m "slow or not slow"

lint: setup ## Check style
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .

format: setup ## Format the code
	$(VENV)/bin/ruff check --fix . && $(VENV)/bin/ruff format .

clean: ## Remove the environment and what the build wrote
	rm -rf $(VENV) && git clean -fdX model_repository
