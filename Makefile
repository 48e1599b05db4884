# Everything that is done to Kuryr has a target here; `make` lists them.

CARGO ?= cargo
# The profile of what demo, bench and e2e run: times are taken from it. `make demo PROFILE=dev` is built sooner and runs slower.
PROFILE ?= release
PROFILE_DIR = $(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
# How many worlds `make test-policies` makes up.
WORLDS ?= 100000
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
BIN = target/$(PROFILE_DIR)
CNI = target/cni/$(HOST)/cni/kuryr-cni
# The testbed runs the executables as they are installed: both kuryr and the static kuryr-cni are looked for here.
TESTBED = KURYR_BIN=$(CURDIR)/$(BIN)/kuryr KURYR_CNI=$(CURDIR)/$(CNI) $(BIN)/kuryr-testbed

.PHONY: help
help: ## this list
	@tools/help $(MAKEFILE_LIST)

.PHONY: demo
demo: need-nft build ## an embedded cloud and two nodes: watch pods get ports and talk, in about a minute
	$(TESTBED) demo

.PHONY: up
up: need-nft build ## the same cloud and nodes, left running for your own kubectl and openstack clients; Ctrl-C ends them
	$(TESTBED) up

.PHONY: test
test: need-nft ## all unit, property and scenario tests, in the embedded world
	$(CARGO) build --workspace --bins
	$(CARGO) test --workspace --no-fail-fast

.PHONY: test-policies
test-policies: ## NetworkPolicies against their specification in 100,000 random worlds (WORLDS=...), for every night
	KURYR_POLICY_WORLDS=$(WORLDS) $(CARGO) test --release --package kuryr-plan --test policy

.PHONY: test-guest
test-guest: ## plug drivers that this machine's kernel may lack (VLAN, ipvlan), in a small virtual machine (software emulation)
	CARGO=$(CARGO) e2e/guest/test

.PHONY: lint
lint: lint-rust lint-deny lint-shell ## format, clippy, licences and advisories, shell scripts

.PHONY: lint-rust
lint-rust:
	$(CARGO) fmt --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

.PHONY: lint-deny
lint-deny:
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny check; \
	else echo "skipped: cargo deny check (cargo install --locked cargo-deny)"; fi

.PHONY: lint-shell
lint-shell:
	@if command -v shellcheck >/dev/null; then shellcheck -x -P . -e SC2034,SC2153 e2e/*.sh e2e/*/*.sh e2e/run e2e/guest/test .ci/run tools/*; \
	else echo "skipped: shellcheck (apt-get install shellcheck)"; fi

.PHONY: e2e
e2e: ## the same scenarios on real OpenStack and real Kubernetes, installed and started here (root, Debian 12)
	e2e/run

.PHONY: e2e-up
e2e-up: ## start that stack with Kuryr on it, and leave it running for you
	e2e/run up

.PHONY: e2e-down
e2e-down: ## end it
	e2e/run down

.PHONY: bench
bench: need-nft build ## the budgets as a table, and as JSON in bench/results/
	@mkdir -p bench/results
	$(TESTBED) bench

# The run whose table bench/README.md shows; by default the newest of the release profile.
RUN ?= $(shell ls -t bench/results/*-release.json 2>/dev/null | head -n 1)
.PHONY: bench-readme
bench-readme: build ## renew the table in bench/README.md from a run in bench/results/
	@test -n "$(RUN)" || { echo "there is no run in bench/results: make bench"; exit 1; }
	$(TESTBED) bench --print "$(RUN)" --into bench/README.md

.PHONY: build
build: cni ## the executables: kuryr, the testbed, and kuryr-cni, which is static
	$(CARGO) build --profile $(PROFILE) --package kuryr --package kuryr-testbed

.PHONY: executables
executables: cni ## what is installed alone: kuryr and kuryr-cni
	$(CARGO) build --profile $(PROFILE) --package kuryr

.PHONY: cni
cni:
	@# A target directory of its own, so that its flags do not have everything else built anew.
	RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build --package kuryr-cni --profile cni --target $(HOST) --target-dir target/cni

.PHONY: fmt
fmt: ## format the source
	$(CARGO) fmt

.PHONY: need-nft
need-nft:
	@tools/need nft nftables
