# Everything lives in a private .venv. If uv is missing, pip installs it there.
UV := $(if $(shell uv --version 2>/dev/null),uv,.venv/bin/uv)
PYTHON := python3
STORAGE := memory
STORAGES := $(basename $(notdir $(wildcard templates/store/*.py)))
CONTEXT := dict
BAKED := $(filter .venv/bin/uv,$(UV))
unexport VIRTUAL_ENV

.PHONY: help demo test test-fast test-full test-mutation bench bench-full check format outdated
help: ## show these lines
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile | expand -t 22

demo: | $(BAKED) ## bake an app and run it (STORAGE=memory|sqlite|redis|postgres)
	$(if $(filter $(STORAGE),$(STORAGES)),,$(error STORAGE=$(STORAGE) is not one of $(STORAGES)))
	"$(UV)" run --no-dev cookiecutter . --no-input --overwrite-if-exists --output-dir .demo/$(STORAGE) \
		storage_type=$(STORAGE) context_type=$(CONTEXT)
	$(MAKE) --no-print-directory -C .demo/$(STORAGE)/chatkit-app run UV="$(if $(BAKED),$(CURDIR)/$(UV),$(UV))"

# three workers on two cores: without the third, the cores wait a third of the time
test: | $(BAKED) ## the product, the browser, the READMEs: 14 minutes
	"$(UV)" run pytest -n 3 -m "not full and not mutation"

test-fast: | $(BAKED) ## under a minute, for everyday use
	"$(UV)" run pytest -n 2 -m "not full and not product"

test-full: | $(BAKED) ## also the long rounds: stops, hostile requests, mutations, 100,000 rows
	"$(UV)" run pytest -n 2 -m ""

test-mutation: | $(BAKED) ## sow defects one at a time; the apps' own tests must catch each
	"$(UV)" run pytest -n 2 -m mutation

bench: | $(BAKED) ## baking, the stores and the server against their floors
	"$(UV)" run python benchmarks/run.py

bench-full: | $(BAKED) ## the same with 100,000 rows
	"$(UV)" run python benchmarks/run.py --full

check: | $(BAKED) ## lint the template as it stands, unrendered
	"$(UV)" run ruff check --no-cache --ignore ERA001,D100 . # jinja lines: not dead code, and bring docstrings
	"$(UV)" run ruff format --no-cache --check .
	"$(UV)" run yamllint --strict .

format: | $(BAKED) ## fix what a tool can fix
	"$(UV)" run ruff check --no-cache --ignore ERA001,D100 --fix-only .
	"$(UV)" run ruff format --no-cache .

outdated: | $(BAKED) ## list dependencies with newer releases, ours and every app's
	"$(UV)" tree --outdated --depth 1

.venv/bin/uv:
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet "uv>=0.9"
