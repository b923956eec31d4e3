# Three commands, each enough alone on a fresh machine with Python 3.11 or newer:
#   make demo     install, then: layouts from a shipped model; OpenStreetMap extract -> city raster -> fine-tuned -> sampled
#   make test     install, then: ruff, mypy and every test
#   make docs     install, then: the site of the documentation
# `make` alone lists the rest. PYTHON=/path/to/python chooses the interpreter that makes .venv.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install demo test quick lint format bench docs clean

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DOCS_INSTALLED := $(VENV)/.installed_docs
NEW_ENOUGH := import ensurepip, venv, sys; sys.exit(sys.version_info < (3, 11))
WORKERS ?= 2
# The second worker is the parallelism: without this, each would start as many threads as there are cores.
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# $(call list,1 2 3): [1,2,3], whose commas would end an argument of `call`
empty :=
comma := ,
list = [$(subst $(empty) $(empty),$(comma),$(strip $(1)))]

# $(call step,what is done,command): say it, do it, and say which one failed.
define step
	@echo "==> $(1)"; { $(2); } || { code=$$?; echo "make: this step failed: $(1)" >&2; exit $$code; }
endef

help:
	@echo "make demo     install, sample the shipped models, prepare a city raster, fine-tune on it, sample into out/"
	@echo "make test     install, then ruff, mypy and every test"
	@echo "make quick    the edit loop: the same without the slow tests, under two minutes"
	@echo "make lint     ruff and mypy only"
	@echo "make format   let ruff format and repair what it can"
	@echo "make docs     the site of the documentation, into docs/_build/html; NOTEBOOKS=off and GALLERY=off leave out what takes minutes"
	@echo "make bench    preparing and loading against the naive way, on the sample extract"
	@echo "make clean    remove $(VENV) and the caches; data/cities, runs and out stay"

# Installed again only when what is to be installed has changed.
install: $(INSTALLED)
$(INSTALLED): pyproject.toml constraints.txt
	@if ! $(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null; then \
		for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python none); do \
			if $$python -c '$(NEW_ENOUGH)' 2>/dev/null; then break; fi; \
		done; \
		if [ $$python = none ] || ! $$python -c '$(NEW_ENOUGH)' 2>/dev/null; then \
			echo "make: no Python 3.11 or newer with the modules venv and ensurepip was found (tried: $(or $(PYTHON),python3 python3.11 to python3.14 python))." >&2; \
			echo "      Install one (Debian and Ubuntu: apt-get install python3 python3-venv) or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; \
			exit 1; \
		fi; \
		echo "==> install 0/2: $$($$python --version) makes $(VENV)"; \
		$$python -m venv --clear $(VENV) || { echo "make: this step failed: install 0/2 making $(VENV)" >&2; exit 1; }; \
	fi
	$(call step,install 1/2: pip and the build backends,$(BIN)/python -m pip install -q -c constraints.txt --upgrade pip hatchling editables setuptools)
	$(call step,install 2/2: citygrain with its dependencies and its test tools (some minutes),$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation --editable . --group dev)
	@touch $@

$(DOCS_INSTALLED): $(INSTALLED)
	$(call step,install: what builds the site,$(BIN)/python -m pip install -q -c constraints.txt --group docs)
	@touch $@

demo: $(INSTALLED)
	$(call step,demo 1/6: five densities by five lengths of cycle track from the model that ships,$(BIN)/citygrain sample checkpoint=reference/cities_64 conditions.coverage=$(call list,0.05 0.12 0.19 0.26 0.33) conditions.cycle=$(call list,0 1 2 3 4) out=out/levels)
	$(call step,demo 2/6: the streets$(comma) cycle tracks and paths of two cities$(comma) drawn as lines,$(BIN)/citygrain sample checkpoint=reference/plans n=4 conditions.place=$(call list,houston copenhagen) out=out/plans)
	$(call step,demo 3/6: from the OpenStreetMap extract of Helsinki to a city raster,$(BIN)/citygrain prepare place=helsinki source=file source.path=data/sample/helsinki.osm.pbf raster.replace=true)
	$(call step,demo 4/6: the model learns Helsinki as well,$(BIN)/citygrain train experiment=demo)
	$(call step,demo 5/6: sample layouts like it and measure them again,$(BIN)/citygrain sample checkpoint=runs/demo n=16 seed=0 conditions.place=helsinki conditions.coverage=p75 conditions.cycle=p90 out=out/demo)
	$(call step,demo 6/6: the buildings and green of its streets at three densities,$(BIN)/citygrain sample checkpoint=reference/streets_to_buildings_256 given.place=helsinki given.split=train n=4 attempts=4 conditions.coverage=$(call list,0.1 0.2 0.3) out=out/streets)

lint: $(INSTALLED)
	$(call step,ruff check,$(BIN)/ruff check)
	$(call step,ruff format,$(BIN)/ruff format --check)
	$(call step,mypy,$(BIN)/mypy)

test: lint
	$(call step,pytest,$(PYTEST))

quick: lint
	$(call step,pytest without the slow tests,$(PYTEST) -m "not slow")

format: $(INSTALLED)
	$(call step,ruff format,$(BIN)/ruff format)
	$(call step,ruff check --fix,$(BIN)/ruff check --fix)

# On the sample extract; benchmarks/README.md has the commands and figures for whole cities.
bench: $(INSTALLED)
	$(call step,bench 1/3: a place to prepare,$(BIN)/citygrain prepare place=helsinki source=file source.path=data/sample/helsinki.osm.pbf raster.replace=true)
	$(call step,bench 2/3: preparing against the naive way,$(BIN)/python benchmarks/prepare.py data/sample/helsinki.osm.pbf --place helsinki --windows 2)
	$(call step,bench 3/3: loading against rasterio,$(BIN)/python benchmarks/loading.py data/cities/helsinki --resolution 2)

# Executed notebooks and pictures of the gallery stay in docs/_build until they or the code change; all else is built anew, so
# that no page of something that is gone is left.
export NOTEBOOKS ?= cache
export GALLERY ?= on
SITE := docs/_build/html
docs: $(DOCS_INSTALLED)
	$(call step,docs 1/2: the site; warnings are errors,rm -rf $(SITE) && OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m sphinx -q -W --keep-going -d docs/_build/doctrees docs $(SITE))
	$(call step,docs 2/2: links inside the site,$(BIN)/python docs/from_code/links.py $(SITE))
	@echo "The site: $(SITE)/index.html"

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis docs/_build
	rm -rf $(addprefix docs/,api cards configuration families made notebooks)
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +
