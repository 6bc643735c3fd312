# msgctl: build, test and show. "make help" lists the targets.
SHELL := /bin/bash
GO ?= go
OUT ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
export CGO_ENABLED ?= 0
LDFLAGS := -s -w -X main.version=$(VERSION)
RACE_PKGS := ./delivery/... ./limits/... ./broker/... ./routing/... ./pipeline/... ./connectors/... ./simulator/... ./templates/... ./campaigns/... ./sdk/... ./store/...

SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: help build demo servers test unit race lint fmt generate verify features features-cluster bench bench-cluster fuzz crash restarts
.PHONY: faults faults-cluster crash-cluster crash-cluster-short sim model clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-20s %s\n", $$1, $$2}'

build: ## build bin/msgctl and bin/engine, static, no cgo
	@mkdir -p bin
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/msgctl ./cmd/engine

demo: build ## run a campaign of 10,000 people over four channels, all on this machine
	@./examples/demo/demo.sh

servers: ## install the PostgreSQL, RabbitMQ, Redis and PgBouncer that tests start for themselves (Debian, Ubuntu)
	$(SUDO) apt-get update -qq
	$(SUDO) env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends \
	  postgresql rabbitmq-server redis-server pgbouncer

test: lint unit race ## everything that CI runs

unit: ## unit tests, kits, features, import arrows, models, simulations, 100 kills, a cluster with 10 faults
	$(GO) vet ./...
	$(GO) test -p 2 -timeout 15m $$($(GO) list ./... | grep -v /bench/crash)
	$(GO) test -timeout 15m ./bench/crash -cycles 100

race: ## the concurrent packages under the race detector, which needs a C compiler
	@command -v gcc >/dev/null || { apt-get update -qq && apt-get install -y -qq gcc libc6-dev; }
	CGO_ENABLED=1 $(GO) test -race -short -timeout 15m $(RACE_PKGS)

lint: ## golangci-lint, pinned in tools/go.mod
	$(GO) tool -modfile=tools/go.mod golangci-lint run ./...

fmt: ## format
	gofmt -w $$(git ls-files '*.go')

generate: ## write the generated parts of the docs anew
	$(GO) test -count=1 -run TestDocsFacts . -update

verify: generate ## fail when the generated parts of the docs were stale
	git diff --exit-code -- docs

features: ## the promises as Gherkin, on an in-process engine
	$(GO) test -count=1 -v -run 'TestFeatures$$' ./features/...

features-cluster: ## the same promises, and those of a cluster, on PostgreSQL, RabbitMQ and Redis
	$(GO) test -count=1 -v -timeout 30m -run 'TestFeaturesOnACluster$$' ./features/...

bench: build ## messages/s, p50, p99, CPU and memory per channel beside the limits of this machine; OUT=file.json keeps them
	@$(GO) run ./bench -out '$(OUT)'

bench-cluster: ## one, two and three engines on a PostgreSQL, RabbitMQ and Redis of its own; ROWS=10000000 scans the most
	@$(GO) run ./bench -only cluster -rows $${ROWS:-1000000}

fuzz: ## each fuzz target for FUZZTIME (default 30s)
	@set -e; for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p 2>/dev/null | grep '^Fuzz' || true); do \
	    echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $${FUZZTIME:-30s} $$p; done; done

crash: build ## CYCLES kills (default 100) of one engine under load over four channels; nothing may be lost
	$(GO) test -count=1 -v -timeout 120m -run 'TestKill$$' ./bench/crash -cycles $${CYCLES:-100}

restarts: build ## RESTARTS graceful restarts (default 200) under load; nothing may be lost or doubled
	$(GO) test -count=1 -v -timeout 60m -run 'TestTerm$$' ./bench/crash -restarts $${RESTARTS:-200}

faults: build ## full disk, torn log, SIGSTOP, set clocks, and QUEUED messages (default 1,000,000) waiting at a kill
	$(GO) test -count=1 -v -timeout 60m -run 'Disk|Torn|Stopped|Second|Clock|Queued' ./bench/crash -queued $${QUEUED:-1000000}

faults-cluster: ## each fault of PostgreSQL, RabbitMQ, Redis, the network and a node, to docs/evidence; ROW=Redis
	$(GO) vet -tags faults ./bench/faults
	$(GO) test -count=1 -v -timeout 60m -tags faults -skip '^TestPage$$' ./bench/faults \
	  $(if $(ROW),-run '$(ROW)') -table ../../docs/evidence/faults.md
	$(GO) test -count=1 ./bench/faults

crash-cluster: build ## FAULTS that hit three engines, PostgreSQL, RabbitMQ and Redis, KEEP=file; default: some 100 minutes
	$(GO) test -count=1 -v -timeout 240m -run 'TestCluster$$' ./bench/crash \
	  -cluster $${FAULTS:-engine=1040,postgres=68,rabbit=40,redis=300} $(if $(KEEP),-keep $(abspath $(KEEP)))

crash-cluster-short: build ## the same in about ten minutes, and two rolling replacements of all engines
	$(GO) test -count=1 -v -timeout 40m -run 'TestCluster$$|TestRolling$$' ./bench/crash \
	  -cluster engine=60,postgres=8,rabbit=6,redis=12 -rolls 2

sim: ## SEEDS simulations (default 10,000) of the whole pipeline on a virtual clock with faults
	$(GO) test -count=1 -timeout 120m ./bench/sim -seeds $${SEEDS:-10000}

model: ## every interleaving of the protocols, and the planted mistakes that break them
	$(GO) test -count=1 -v -timeout 30m ./bench/model

clean: ## remove what build and demo made
	rm -rf bin out .msgctl
