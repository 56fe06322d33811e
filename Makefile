# The ways into this project; `make` alone lists them.
#
# Every target builds into one folder outside the checkout, with one profile and one choice of
# packages, so that the dependencies are compiled once (CONTRIBUTING.md tells the minutes).

CACHE := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/inferq
CARGO_TARGET_DIR ?= $(CACHE)/target
# Debian puts nats-server where only root looks; `go install` puts it into the last one.
PATH := $(PATH):/usr/local/sbin:/usr/sbin:$(or $(GOPATH),$(HOME)/go)/bin
export CARGO_TARGET_DIR PATH
# Graphics drivers ask for a private folder; where no session made one, it is ours.
ifndef XDG_RUNTIME_DIR
export XDG_RUNTIME_DIR := $(CACHE)/run
$(shell mkdir -p "$(CACHE)" && mkdir -p -m 700 "$(XDG_RUNTIME_DIR)")
endif

# More flags for cargo, such as --locked or --timings.
CARGO_FLAGS ?=
# `--examples` is what lets `build` and `test` agree on the features of every dependency.
BUILD := cargo build --workspace --bins --examples $(CARGO_FLAGS)

.DEFAULT_GOAL := help
.PHONY: help setup build demo soak pressure faults test fmt lint docs deny ci env clean-data

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

setup: ## install what is missing beside Rust
	@deploy/setup.sh

build: setup ## build every program
	$(BUILD)

demo: build ## real digits through two workers: accuracy, jobs/s, latencies
	@"$(CARGO_TARGET_DIR)/debug/examples/demo"

soak: build ## 100 000 jobs while workers, servers and the network fail; SOAK="--seed 1" for the same again
	@"$(CARGO_TARGET_DIR)/debug/examples/soak" $(SOAK)

pressure: build ## idle CPU, fairness, expiry and overload against their bounds; PRESSURE="crowd" for a part
	@"$(CARGO_TARGET_DIR)/debug/examples/pressure" $(PRESSURE)

faults: build ## what still holds when a part fails: the fault suite alone, with both servers
	@integration/clients/setup.sh
	@integration/test.sh --test faults $(CARGO_FLAGS)

test: build ## all tests, against real servers on free ports, old and new
	@integration/clients/setup.sh
	@integration/test.sh $(CARGO_FLAGS)

fmt: ## format the code
	cargo fmt --all

lint: ## clippy; a warning is an error
	cargo clippy --workspace --all-targets --features inferq-schemas-fuzz/targets $(CARGO_FLAGS) -- -D warnings

docs: ## the documentation of the code; a warning is an error
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps $(CARGO_FLAGS)

deny: ## licences, banned crates and sources of all dependencies
	@deploy/setup.sh --ci
	cargo deny --workspace --locked check bans licenses sources

ci: ## everything that must be green before a merge
	@.ci/run

env: ## variables to build and run by hand: eval "$(make env)"
	@echo 'export CARGO_TARGET_DIR="$(CARGO_TARGET_DIR)"'
	@echo 'export PATH="$(CARGO_TARGET_DIR)/debug:$$PATH:/usr/local/sbin:/usr/sbin"'

clean-data: ## remove what `inferq up` has stored
	rm -rf .data
