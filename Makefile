# Two commands on a fresh machine: `make quickstart` and `make test`.
# Each target makes .venv and installs what it needs when that is missing; nothing is done by hand.
#
#   make quickstart [SOURCE=/some/folder]   a real backup and restore on loopback, of the package by
#                                           default
#   make test                               the whole test suite
#   make lint | docs | wheel-check | clean  for developers
#   make crash [SECONDS=600] [SEED=1] [CAMPAIGN=kills]
#                                           kills, power cuts, faults, flips: see CONTRIBUTING.rst
#   make attack [SECONDS=600] [SEED=1] [CAMPAIGN=codec]
#                                           attackers of every kind: see CONTRIBUTING.rst
#   make fuzz [SECONDS=60] [SEED=1] [TARGET=records]
#                                           fuzzes every parser: see CONTRIBUTING.rst
#   make tls-scan                           sslyze against a provider's port (docs/security/tls.rst)
#   make model | model-short                checks the model of the key exchange (docs/model)
#
# PYTHON=python3.13 chooses another interpreter, TESTS=tests.wire a part of the tests, JOBS=4 more
# processes for them.

PYTHON ?= python3
VENV := .venv
TESTS ?= tests
JOBS ?= 3
SECONDS ?= 600
SEED ?= 1
CAMPAIGN ?= all
TARGET ?= all
# Small, and always there: the whole folder has .venv, and after a test run gigabytes of its files.
SOURCE ?= cloudconnect
export SOURCE

# One after the other also under -j: the targets share the virtual environment.
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help quickstart test lint docs wheel-check crash attack fuzz tls-scan model model-short clean

help:
	@sed -n '/^#/!q;s/^# \{0,1\}//p' Makefile

quickstart: $(VENV)/.installed-base
	@$(VENV)/bin/cloudconnect quickstart "$$SOURCE"

test: $(VENV)/.installed-test
	$(VENV)/bin/python -m twisted.trial -j$(JOBS) $(TESTS)

crash: $(VENV)/.installed-test
	@$(VENV)/bin/python -m tests.crash --seconds $(SECONDS) --seed $(SEED) --campaign '$(CAMPAIGN)'

attack: $(VENV)/.installed-test
	@$(VENV)/bin/python -m tests.attacks --seconds $(SECONDS) --seed $(SEED) --campaign '$(CAMPAIGN)'

# atheris needs not be there for anything else, and sslyze is only called: each has a place of its own.
fuzz: .venv-fuzz/.installed
	@.venv-fuzz/bin/python -m tests.fuzz $(TARGET) --seconds $(SECONDS) --seed $(SEED)

tls-scan: $(VENV)/.installed-test .venv-sslyze/.installed
	@$(VENV)/bin/python -m benchmarks.security.tls_scan --sslyze .venv-sslyze/bin/sslyze

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/bandit -q -r -ll cloudconnect

docs: $(VENV)/.installed-dev
	$(VENV)/bin/sphinx-build -W -n --keep-going -q -b html docs docs/_build
	@echo "docs/_build/index.html is ready"

wheel-check: $(VENV)/.installed-base
	@.ci/wheel-check $(VENV)/bin/python

model: $(VENV)/.installed-model
	@$(VENV)/bin/python docs/model/check.py

model-short: $(VENV)/.installed-model
	@$(VENV)/bin/python docs/model/check.py --short

clean:
	rm -rf $(VENV) build dist cloudconnect.egg-info docs/_build _trial_temp* quickstart-data \
	    .mypy_cache .ruff_cache .hypothesis twisted/plugins/dropin.cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the virtual environment --------------------------------------------------------------------

$(VENV)/.created:
	@command -v "$(PYTHON)" >/dev/null || { echo "make: there is no $(PYTHON) here; name" \
	    "an interpreter of Python 3.11 or newer: make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: cloudconnect" \
	    "needs Python 3.11 or newer, and $(PYTHON) is $$("$(PYTHON)" -V 2>&1); name" \
	    "another one: make PYTHON=python3.13 ..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) cannot make" \
	    "virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV)
	@touch $@

.venv-fuzz/.installed: setup.cfg
	@"$(PYTHON)" -m venv .venv-fuzz
	@.venv-fuzz/bin/python -m pip install -qq --disable-pip-version-check --no-input \
	    --editable '.[test,fuzz]'
	@touch $@

.venv-sslyze/.installed:
	@"$(PYTHON)" -m venv .venv-sslyze
	@.venv-sslyze/bin/python -m pip install -qq --disable-pip-version-check --no-input sslyze
	@touch $@

# .installed-base is the package alone, .installed-test and .installed-dev add that extra.
$(VENV)/.installed-%: $(VENV)/.created setup.cfg pyproject.toml
	@echo "installing cloudconnect ($*) into $(VENV), once ..."
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check --no-input \
	    --editable '.$(subst [base],,[$*])' || { echo "make: the installation failed; pip's reason" \
	    "stands above (it needs a package index or a proxy that it can reach)" >&2; exit 1; }
	@touch $@
