# Every target does its own set-up, needs no root and works with or without a ROS distribution.
#
# Variables: PYTHON (which interpreter makes the environment), PIP_ARGS (more options for pip),
# SEQUENCE, BAG, ARGS (see demo), TESTS (see test).

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup build demo test lint bench clean

RUN := scripts/run

help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

setup: ## Make the Python environment (.venv, or .venv-<distribution> beside a sourced ROS)
	@scripts/setup

build: setup ## Build the messages and the ROS package into install/
	@$(RUN) python scripts/build_overlay.py

clean: ## Remove everything that the other targets made
	rm -rf .venv .venv-* build install log demo_output bench_output .cache
