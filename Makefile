# ClawOS. Everything runs inside one pinned tools root (image/tools): 'make help' lists the targets.
SHELL := /bin/bash
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# What a target passes on to the programs behind it.
export BASE ?= debian
export ARCH ?= x86_64
export LOCKDOWN KEEP IMAGE MEMORY SHARE UPGRADE
ENTER := image/tools/enter
ifdef SHARE
ifeq ($(wildcard $(SHARE)/.),)
$(error SHARE=$(SHARE) is no folder)
endif
override SHARE := $(abspath $(SHARE))
export CLAWOS_BIND += $(SHARE)
endif
IN_TOOLS := $(ENTER) image/tools/with-python

# A name of make's own, not the shell's clock.
SECONDS ?= 60

.PHONY: help setup image run vm vm-stop check format unit test test-vm test-full fuzz bench model eval manifest lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  make run                               boot the image in QEMU, on this terminal (Ctrl-A X leaves)"
	@echo "  make run CMD='how much memory is free?'  the same unattended: answer, power off"
	@echo "  make vm SH='systemctl --failed'        run a command line as root in the image"
	@echo "  LOCKDOWN=none|integrity|confidentiality, KEEP=1 (leave it running) work for run CMD= and vm"
	@echo "  MEMORY=8192 (MiB) and SHARE=folder (the guest's disk with the label share) work for all three"

setup: ## make the tools root, llama.cpp and the Python environment (once)
	@$(IN_TOOLS) true

image: setup ## build the image: build/image/clawos.raw
	@$(ENTER) image/build

# The image is rebuilt only when something it is made of has changed.
build/image/clawos.raw: $(shell git ls-files -co --exclude-standard image rootfs kernel ebpf policies services docs/specs qa/model/builtin.gguf VERSION 2>/dev/null)
	@$(MAKE) image

run: build/image/clawos.raw ## boot the image and talk to it; CMD='text' does it unattended
ifdef CMD
	@$(ENTER) python3 -m qa.vm run "$$CMD"
else
	@$(ENTER) python3 -m qa.vm console
endif
# As typed: a $$ in them is the shell's in the guest, not make's.
override CMD := $(value CMD)
override SH := $(value SH)
export CMD SH REQUESTS

vm: build/image/clawos.raw ## run SH='command' as root in the image
	@[ -n "$$SH" ] || { echo "make vm: give a command line, as in make vm SH='systemctl --failed'" >&2; exit 2; }
	@$(ENTER) python3 -m qa.vm root "$$SH"

vm-stop: ## stop a guest that KEEP=1 left running
	@$(ENTER) python3 -m qa.vm stop

check: setup ## format, lint, types, unit, contract and private-bus tests
	@$(IN_TOOLS) qa/check

format: setup ## rewrite the Python sources in the one format
	@$(IN_TOOLS) bash -c 'cd services && ruff format . ../qa && ruff check --fix . ../qa'

unit: setup ## only the tests outside the VM
	@$(IN_TOOLS) qa/check unit

test: check test-vm ## everything that CI runs

test-vm: build/image/clawos.raw ## the suites that need the image, each on boots of its own
	@$(IN_TOOLS) qa/in-vm

test-full: test ## everything, and what takes long: each lockdown mode, CPython's tests, faults, fuzzing, half an hour of work
	@$(IN_TOOLS) env LOCKDOWN='none integrity' python -m pytest qa/monitor
	@$(IN_TOOLS) python -m qa.compat
	@$(IN_TOOLS) python -m pytest qa/faults --all
	@$(IN_TOOLS) qa/fuzz/run 1200
	@$(IN_TOOLS) env QA_SESSION_S=1800 QA_CPYTHON=all QA_LOAD_S=60 python -m pytest qa/detect/test_quiet.py qa/load

fuzz: setup ## SECONDS=n: fuzz the parser of the isolator's launcher
	@$(IN_TOOLS) qa/fuzz/run $(SECONDS)

bench: build/image/clawos.raw ## measure; writes build/bench/*.json and docs/benchmarks.md
	@$(IN_TOOLS) python -m qa.bench

model: ## train the built-in model from its seeds and export it (over an hour on two cores)
	@qa/model/make

eval: setup ## REQUESTS=file.jsonl: what the shipped model makes of each request
	@[ -n "$$REQUESTS" ] || { echo 'make eval: give REQUESTS=file.jsonl with lines {"id","text"}' >&2; exit 2; }
	@[ -r "$$REQUESTS" ] || { echo "make eval: cannot read $$REQUESTS" >&2; exit 2; }
	@$(IN_TOOLS) python -m qa.model.requests /dev/stdin <"$$REQUESTS" # the tools root does not see every folder

manifest: setup ## write policies/MANIFEST anew after a deliberate change to a frozen spec
	@$(IN_TOOLS) bash -c 'cd services/src && python -m clawos.core.manifest write'

lock: setup ## write services/*.lock anew after a change to services/*.in; UPGRADE=1 takes newer versions
	@$(ENTER) image/tools/lock

clean: ## remove build/ (caches stay)
	rm -rf build
