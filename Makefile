# Two commands for a newcomer: `make demo` and `make test`. Each sets up what it needs; python3 (3.11 to 3.13), git and
# make are all that must be there. `make help` lists the rest.

PYTHON ?= python3
PART ?=
WORKERS ?= 3
export UV_PYTHON_DOWNLOADS = never

ROOT := $(CURDIR)
UV := $(or $(shell command -v uv 2>/dev/null),$(ROOT)/.uv/bin/uv)
BIN := $(ROOT)/.venv/bin
MEMBERS := yard build tracking serving
READY := .venv/.ready
# A Kubernetes with all that runs in it wants these cores to itself. A part may have no tests of one of the two kinds.
IF_THERE_ARE_SOME = [ $$? = 5 ]
SIDE_BY_SIDE = -n $(WORKERS) --no-loadscope-reorder

.PHONY: help setup demo test test-quick browser ceph engine jenkins kubernetes wrk check format lock clean

help: ## list the targets
	@grep -hE '^[a-zA-Z%_-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: $(READY) ## install everything from the lock into .venv

demo: $(READY) ## the whole road on the example project, in about a minute
	@$(BIN)/yard demo

test: $(READY) ## all tests, on the real mongod, Envoy, Ray, MLflow and BentoML; PART=tests/yard for a part
	@$(BIN)/pytest -m "not faults and not kubernetes" $(SIDE_BY_SIDE) $(PART) || $(IF_THERE_ARE_SOME)
	@$(BIN)/pytest -m "kubernetes and not faults" $(PART) || $(IF_THERE_ARE_SOME)

test-quick: $(READY) ## the tests that need no running stack but a mongod, in some minutes
	@$(BIN)/pytest -m "not faults and not system and not kubernetes" $(SIDE_BY_SIDE) $(PART)

browser: ## a Chromium for the browser tests, by apt, unless there is one
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	  echo "installing Chromium"; \
	  sudo=$$([ $$(id -u) = 0 ] || echo "sudo -n"); \
	  { $$sudo apt-get update -qq && \
	    $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1 || \
	  { echo "Install it first:  sudo apt install chromium"; exit 1; }

ceph: ## a Ceph for the tests of the shared store, by apt, unless there is one; none of it is started
	@command -v radosgw >/dev/null && command -v ceph-osd >/dev/null && exit 0; \
	  echo "installing Ceph"; \
	  sudo=$$([ $$(id -u) = 0 ] || echo "sudo -n"); \
	  policy=/usr/sbin/policy-rc.d; own=; \
	  [ -e $$policy ] || { own=1; printf '#!/bin/sh\nexit 101\n' | $$sudo tee $$policy >/dev/null; $$sudo chmod 755 $$policy; }; \
	  { $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends ceph-mon ceph-osd radosgw; } >/dev/null 2>&1; \
	  [ -z "$$own" ] || $$sudo rm -f $$policy; \
	  command -v radosgw >/dev/null || { echo "Install it first:  sudo apt install ceph-mon ceph-osd radosgw"; exit 1; }

engine: ## a docker engine and a registry for the tests of images, by apt, unless they are there; none is started
	@for name in dockerd docker-registry mmdebstrap iptables; do command -v $$name >/dev/null || missing=1; done; \
	  [ -n "$$missing" ] || exit 0; \
	  echo "installing a docker engine and a registry"; \
	  sudo=$$([ $$(id -u) = 0 ] || echo "sudo -n"); \
	  policy=/usr/sbin/policy-rc.d; own=; \
	  [ -e $$policy ] || { own=1; printf '#!/bin/sh\nexit 101\n' | $$sudo tee $$policy >/dev/null; $$sudo chmod 755 $$policy; }; \
	  { $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends docker.io iptables docker-registry mmdebstrap; } >/dev/null 2>&1; \
	  [ -z "$$own" ] || $$sudo rm -f $$policy; \
	  command -v dockerd >/dev/null || { echo "Install it first:  sudo apt install docker.io docker-registry mmdebstrap"; exit 1; }

jenkins: ## a Groovy and a Java for the tests of Jenkinsfiles, by apt, unless there are some
	@[ -f /usr/share/java/groovy-all.jar ] && command -v java >/dev/null && exit 0; \
	  echo "installing Groovy"; \
	  sudo=$$([ $$(id -u) = 0 ] || echo "sudo -n"); \
	  { $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends groovy default-jre-headless; } >/dev/null 2>&1; \
	  [ -f /usr/share/java/groovy-all.jar ] && command -v java >/dev/null || \
	  { echo "Install it first:  sudo apt install groovy default-jre-headless"; exit 1; }

kubernetes: ## a kubectl for the tests of k8s/, by apt, unless there is one; 1.27 or newer, which Debian 12 has not
	@command -v kubectl >/dev/null && exit 0; \
	  echo "installing kubectl"; \
	  sudo=$$([ $$(id -u) = 0 ] || echo "sudo -n"); \
	  { $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends kubernetes-client; } >/dev/null 2>&1; \
	  command -v kubectl >/dev/null || { echo "Install it first:  https://kubernetes.io/docs/tasks/tools"; exit 1; }

wrk: ## the load generator of `make bench-serving`, by apt, unless it is there
	@command -v wrk >/dev/null && exit 0; \
	  echo "installing wrk"; \
	  sudo=$$([ $$(id -u) = 0 ] || echo "sudo -n"); \
	  { $$sudo apt-get update -qq && \
	    $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends wrk; } >/dev/null 2>&1 || \
	  { echo "Install it first:  sudo apt install wrk"; exit 1; }

check: $(READY) ## lint, format, types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(READY) ## mend what ruff can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench-%: $(READY) ## measure a part: a table; with JSON=1 the last line is one JSON object
	@$(BIN)/python tests/bench/$*.py $(if $(JSON),--json)

bench-serving: wrk
faults-kubernetes: engine kubernetes

faults-%: $(READY) ## the long fault tests of a part
	@$(BIN)/pytest -m faults tests/$*

lock: | $(UV) ## lock again: the workspace's requirements.lock, then each project's
	@$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
	  --custom-compile-command "make lock" --output-file requirements.lock $(if $(UPGRADE),--upgrade) \
	  $(MEMBERS:%=%/pyproject.toml) --extra cluster --extra gateway --extra kubernetes --extra lab --extra onnx --extra s3 --group pyproject.toml:dev \
	  --no-emit-package modelyard $(foreach m,build tracking serving,--no-emit-package modelyard-$(m))
	@$(MAKE) --no-print-directory setup
	@for file in projects/*/requirements.in; do $(BIN)/yard lock $$(basename $$(dirname $$file)); done

clean: ## stop the stack; remove .yard, .venv and caches
	@if [ -x $(BIN)/yard ]; then $(BIN)/yard down; fi
	rm -rf .yard .venv .uv .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements.lock $(MEMBERS:%=%/pyproject.toml) Makefile | $(UV)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.11, 3.12 or 3.13 is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12"; exit 1; }
	@echo "installing into .venv (the first time, some minutes)"
	@[ -x $(BIN)/python ] || $(UV) venv --quiet --python "$$(command -v $(PYTHON))" .venv
	@VIRTUAL_ENV=$(ROOT)/.venv $(UV) pip sync --quiet --require-hashes --compile-bytecode requirements.lock
	@VIRTUAL_ENV=$(ROOT)/.venv $(UV) pip install --quiet --no-deps --no-build-isolation $(MEMBERS:%=-e ./%)
	@touch $@

# uv comes from the package index through venv and pip. Debian splits venv off; with the rights to, it is installed.
$(ROOT)/.uv/bin/uv:
	@$(PYTHON) -m venv .uv >/dev/null 2>&1 || { rm -rf .uv; \
	  echo "python3-venv is missing; installing it"; \
	  sudo=$$([ $$(id -u) = 0 ] || echo "sudo -n"); \
	  { $$sudo apt-get update -qq && $$sudo apt-get install -y -qq --no-install-recommends python3-venv; } >/dev/null 2>&1 && \
	  $(PYTHON) -m venv .uv; } || { rm -rf .uv; echo "Install it first:  sudo apt install python3-venv      (or uv itself)"; exit 1; }
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
