# One door for people and for CI. `make env` sets everything up in .venv; every other target calls
# it, and it does nothing when .venv is newer than pyproject.toml and constraints.txt.
#
#   make test ARGS="-k units"       more options for the command behind a target
#   make test ARGS="-n 8"           more processes than the two that the tests run in; -n 0 is none
#   make env PYTHON=python3.12      another Python, 3.11 or newer

EXTRAS := dev,docs,tour,hf,ray
VENV := .venv
PY := $(VENV)/bin/python
FAIRSEQ_VENV := .venv-fairseq
THREADS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
ARGS ?=
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --no-compile

.PHONY: help env tour test test-parity lint format bench docs lock clean distclean fairseq-env
.DEFAULT_GOAL := help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(VENV)/.stamp ## make .venv with every dependency at the versions of constraints.txt
	@:

# The first Python of 3.11 to 3.13, the versions that constraints.txt is tried with, else any newer.
PYTHON ?= $(shell for range in '< (3, 14)' '>= (3, 14)'; do \
	for python in python3 python3.13 python3.12 python3.11 python; do \
	$$python -c "import sys; sys.exit(not (sys.version_info >= (3, 11) and sys.version_info $$range))" \
	2>/dev/null && echo $$python && exit; done; done; echo python3)

$(VENV)/.stamp: pyproject.toml constraints.txt
	@python='$(PYTHON)'; \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  found="$$("$$python" -c 'import sys; print("Python", sys.version.split()[0])' 2>/dev/null)"; \
	  echo "error: Python 3.11 or newer is needed; '$$python' is $${found:-no Python that runs}." \
	       "Install one, then: make env PYTHON=/path/to/python3.11" >&2; exit 1; }; \
	echo "Setting up $(VENV) with $$("$$python" --version); minutes the first time ..."; \
	$(PY) -m pip --version >/dev/null 2>&1 || "$$python" -m venv --clear $(VENV) || { \
	  echo "error: '$$python -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; \
	  exit 1; }
	@$(PY) $(PIP_INSTALL) --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

tour: env ## the main job from end to end on an embedded corpus
	@$(PY) -m recipes.tour $(ARGS)

test: env ## the tests that need nothing but this checkout
	@$(PY) -m pytest -n 2 --dist worksteal $(ARGS)

test-parity: env fairseq-env ## the encoders against Transformers and, under Python 3.10, fairseq
	@found="$$(ls $(CURDIR)/$(FAIRSEQ_VENV)/.stamp 2>/dev/null)"; \
	export UNITONE_FAIRSEQ_PYTHON="$${UNITONE_FAIRSEQ_PYTHON:-$${found:+$(CURDIR)/$(FAIRSEQ_VENV)/bin/python}}"; \
	[ -n "$$UNITONE_FAIRSEQ_PYTHON" ] || unset UNITONE_FAIRSEQ_PYTHON; \
	$(PY) -m pytest -m parity $(ARGS)

# fairseq 0.12.2 cannot be imported on Python 3.11 or newer. Where its environment cannot be made,
# say so and go on: the parity tests against it are then skipped, the others run.
fairseq-env:
	@[ -n "$$UNITONE_FAIRSEQ_PYTHON" ] || [ -f $(FAIRSEQ_VENV)/.stamp ] || { \
	for python in python3.10 "$$HOME"/.pyenv/versions/3.10*/bin/python; do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' 2>/dev/null && break; python=; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "no Python 3.10 found: going on without parity against fairseq"; exit 0; fi; \
	echo "Setting up $(FAIRSEQ_VENV) with $$("$$python" --version); minutes the first time ..."; \
	{ "$$python" -m venv --clear $(FAIRSEQ_VENV) && \
	  $(FAIRSEQ_VENV)/bin/python $(PIP_INSTALL) 'pip<24.1' 'setuptools<70' wheel && \
	  $(FAIRSEQ_VENV)/bin/python $(PIP_INSTALL) torch==2.2.2 torchaudio==2.2.2 'numpy<1.24' && \
	  $(FAIRSEQ_VENV)/bin/python $(PIP_INSTALL) 'numpy<1.24' fairseq==0.12.2 && \
	  $(FAIRSEQ_VENV)/bin/python -W ignore -c 'import fairseq' && \
	  touch $(FAIRSEQ_VENV)/.stamp; } || \
	echo "fairseq could not be installed (see above): going on without parity against it"; }

lint: env ## ruff, mypy and pyright, as CI runs them
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(PY) -m mypy tests
	$(PY) -m pyright --pythonpath $(PY)

format: env ## rewrite the code as `make lint` wants it
	@$(PY) -m ruff check --fix
	@$(PY) -m ruff format

bench: env ## every benchmark of eval/bench/, one after the other
	@status=0; for file in eval/bench/[a-z]*.py; do \
	  echo "== $$file, $(THREADS) threads"; \
	  OMP_NUM_THREADS=$(THREADS) $(PY) -m "eval.bench.$$(basename "$$file" .py)" $(ARGS) || status=1; \
	done; exit $$status

docs: env ## the documentation as a site, into site/
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict $(ARGS)

# Newest versions that the ranges of pyproject.toml allow, without local suffixes such as +cpu.
# Lines for other Pythons (audioop-lts, standard-*) are kept by hand: see the file's head.
lock: ## newest versions into constraints.new; look at it before it replaces constraints.txt
	@rm -rf $(VENV)-lock && '$(PYTHON)' -m venv $(VENV)-lock
	@$(VENV)-lock/bin/python $(PIP_INSTALL) '.[$(EXTRAS)]'
	@$(VENV)-lock/bin/python -m pip freeze --all --exclude unitone --exclude pip \
	  | sed -E -e '/^(-e|#)/d' -e '/ @ /d' -e 's/\+[A-Za-z0-9.]+$$//' -e '/^(nvidia-|triton|cuda-)/d' \
	  | LC_ALL=C sort -f > constraints.new
	@rm -rf $(VENV)-lock && echo "wrote constraints.new"

clean: ## what was built; the environments stay
	@rm -rf build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean ## the environments as well
	@rm -rf $(VENV) $(VENV)-lock $(FAIRSEQ_VENV)
