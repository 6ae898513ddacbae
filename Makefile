# Every target does its own set-up, needs no root and works with or without a ROS distribution.
#
# Variables: PYTHON (which interpreter makes the environment), PIP_ARGS (more options for pip),
# SEQUENCE, BAG (see demo), TESTS (see test), ARGS (more arguments for the command).

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup build demo test lint docs bench fuzz soak pairs clean

RUN := scripts/run

help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

setup: ## Make the Python environment (.venv, or .venv-<distribution> beside a sourced ROS)
	@scripts/setup

build: setup ## Build the messages and the ROS package into install/
	@$(RUN) python scripts/build_overlay.py

demo: build ## Matches over real ROS 2, with pictures: SEQUENCE=folder, BAG=folder, ARGS="..."
	@$(RUN) superglue-ros demo $(if $(SEQUENCE),--sequence "$(SEQUENCE)") \
		$(if $(BAG),--bag "$(BAG)") $(ARGS)

test: build ## The whole test suite; TESTS=test/ros for a part, ARGS="-x -k name" for pytest
	@$(RUN) python -m pytest -n auto --maxprocesses 4 --max-worker-restart 1 --dist loadfile $(TESTS) $(ARGS)

lint: setup ## ruff, mypy, shellcheck, and every link of the documentation
	@$(RUN) ruff check .
	@$(RUN) mypy
	@$(RUN) shellcheck -x scripts/run scripts/setup scripts/setup_node scripts/env.sh .ci/run
	@$(RUN) mkdocs build --strict --quiet

docs: setup ## The documentation site, into build/site/
	@$(RUN) mkdocs build --strict

bench: build ## Time and memory against public implementations, into bench_output/: ARGS="..."
	@$(RUN) superglue-ros bench $(ARGS)

fuzz: build ## Hostile messages, files and frames, counted: ARGS="--minutes 10"
	@PYTHONPATH=test/ros $(RUN) python test/campaign/fuzz.py $(ARGS)

soak: build ## A matcher for hours, with faults: ARGS="--frames 10000", ARGS="--hours 8"
	@PYTHONPATH=test/ros $(RUN) python test/campaign/soak.py $(ARGS)

pairs: build ## Very many pairs on Ray, with workers and the driver killed: ARGS="--pairs 1000000"
	@$(RUN) python test/campaign/many_pairs.py $(ARGS)

clean: ## Remove everything that the other targets made
	rm -rf .venv .venv-* build build-* install install-* log log-* demo_output bench_output fuzz_output soak_output pairs_output .cache
