# What a developer types. Every target sets up what it needs; `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

PYTHON := .venv/bin/python
PACKAGES := agent controlplane deploy images manifests orchctl protos runtime telemetry trust
JOBS ?= 2
# The suite as a whole; each test has a bound of its own (pyproject.toml). A busy machine may take several times as long as
# a quiet one, where this is a quarter of an hour.
BOUNDED := timeout --foreground --signal=INT --kill-after=60 4800
# `make test-vm` as a whole. On two cores, with emulated processors, it takes half an hour; what is cut off has a minute of
# that to end its machines, and to name the chapter that it was in.
VM_BOUND_S ?= 2400
LABORATORY := $(PYTHON) -m pytest -x -v --capture=no tests/vm/laboratory.py
within = left=$$(($(VM_BOUND_S) - 60 - SECONDS)) code=0; \
	timeout --foreground --signal=INT --kill-after=60 $$((left > 0 ? left : 1)) $(1) || code=$$?; \
	case $$code in 124 | 137) echo "$@: not done within $$(($(VM_BOUND_S) / 60)) minutes; the lines above name what was running" >&2 ;; esac; \
	[ $$code = 0 ] || exit $$code
ONLY ?=
JSON ?=
SEED ?=
COUNT ?=
PREFIX ?= /usr/local
BUNDLE ?= build/orch

.PHONY: help setup setup-test demo test test-systems test-vm test-vmlab vmlab vmlab-ssh vmlab-down check static bench protos sim \
	constraints bundle install-runtime uninstall-runtime clean

help: ## List the targets
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install Debian packages and the virtual environment (once as root; then it finds everything done)
	@deploy/setup.sh

setup-test:
	@deploy/setup.sh test

demo: setup ## Run the tour: three nodes, a service, failures, and nothing left afterwards (root)
	@$(PYTHON) -m deploy.demo

check: setup static ## Everything that needs neither root nor network, in about a minute
	@$(BOUNDED) $(PYTHON) -m pytest -q -n $(JOBS) -m 'not root and not etcd and not slow'

test: setup-test static ## Every test, as CI runs it (root, etcd and the peers; they fail where these are missing)
	@$(BOUNDED) $(PYTHON) -m pytest -q -n $(JOBS) --durations=40 --durations-min=10

static: setup
	@.venv/bin/ruff format --quiet --check . || { echo 'static: run .venv/bin/ruff format on these files' >&2; .venv/bin/ruff format --check .; }
	@.venv/bin/ruff check --quiet .
	@.venv/bin/mypy --no-error-summary $(PACKAGES:%=-p %)

test-systems: setup-test ## Install on each supported release of Debian, and run there what `make check` runs (root)
	@ORCH_TEST_SYSTEMS=1 $(BOUNDED) $(PYTHON) -m pytest -v -rsP tests/integration/deploy/test_install.py \
		tests/integration/deploy/test_install_broken_off.py tests/systems/suite.py

test-vm: setup-test ## The runtime's tests on a machine with cgroup v2 alone, then test-vmlab: make test-vm [ONLY=tests/…]
	@$(call within,$(PYTHON) -m tests.vm $(ONLY)); [ -n "$(ONLY)" ] || { $(call within,$(LABORATORY)); }

test-vmlab: setup-test ## Install, join, lose, upgrade and trust anew: a cluster on three virtual machines, to its end (root)
	@$(call within,$(LABORATORY))

vmlab: setup-test ## Boot three virtual machines with a cluster and an example on them, and leave them to you (root)
	@$(PYTHON) -m deploy.vmlab up

vmlab-ssh: ## A shell on one of them, or a command there: make vmlab-ssh N=1 [COMMAND='orchctl node ls']
	@$(PYTHON) -m deploy.vmlab ssh $(or $(N),1) $(COMMAND)

vmlab-down: ## End them, and remove what they have written
	@$(PYTHON) -m deploy.vmlab down

bench: setup-test ## Measure against the peers: make bench [ONLY=cluster] [JSON=out.json] (root)
	@$(PYTHON) -m tests.bench.run $(if $(ONLY),--only $(ONLY)) $(if $(JSON),--json $(JSON))

protos: setup ## Generate the code of protos/ again
	@$(PYTHON) -m protos.generate

sim: setup ## Run seeds of the simulation: make sim SEED=7 [COUNT=100]
	@$(PYTHON) -m tests.sim $(or $(SEED),1) $(COUNT)

constraints: setup ## Write constraints.txt from what the virtual environment holds now
	@{ echo '# Exact versions of everything that the virtual environment holds; `make constraints` writes this file.'; \
		$(PYTHON) -m pip list --format=freeze --exclude-editable --exclude pip; } >constraints.txt.new
	@mv constraints.txt.new constraints.txt

bundle: setup ## Make a folder and a tar file to install from without a network: make bundle [BUNDLE=build/orch]
	@deploy/bundle.sh $(BUNDLE)

install-runtime: ## Install orchrun, the OCI command line, for podman and Docker: make install-runtime [PREFIX=/usr/local] (root)
	@deploy/install-runtime.sh $(PREFIX)

uninstall-runtime: ## Take orchrun away again
	@deploy/install-runtime.sh --remove $(PREFIX)

clean: ## Remove caches and build products, not the virtual environment
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build out *.egg-info .setup.lock
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
