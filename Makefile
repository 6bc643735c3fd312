# msgctl: build, test and show. "make help" lists the targets.
SHELL := /bin/bash
GO ?= go
OUT ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
export CGO_ENABLED ?= 0
LDFLAGS := -s -w -X main.version=$(VERSION)
RACE_PKGS := ./delivery/... ./limits/... ./broker/... ./routing/... ./pipeline/... ./connectors/... ./simulator/... ./templates/... ./campaigns/... ./sdk/... ./store/...

.PHONY: help build demo test unit race lint fmt generate verify features bench fuzz crash restarts faults sim model clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

build: ## build bin/msgctl and bin/engine, static, no cgo
	@mkdir -p bin
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/msgctl ./cmd/engine

demo: build ## run a campaign of 10,000 people over four channels, all on this machine
	@./examples/demo/demo.sh

test: lint unit race ## everything that CI runs

unit: ## unit tests, kits, features, import arrows, models, simulations, 100 kills
	$(GO) vet ./...
	$(GO) test -timeout 15m $$($(GO) list ./... | grep -v /bench/crash)
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
	$(GO) test -count=1 -v -run TestFeatures ./features/...

bench: build ## messages/s, p50, p99, CPU and memory per channel beside the limits of this machine; OUT=file.json keeps them
	@$(GO) run ./bench -out '$(OUT)'

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

sim: ## SEEDS simulations (default 10,000) of the whole pipeline on a virtual clock with faults
	$(GO) test -count=1 -timeout 120m ./bench/sim -seeds $${SEEDS:-10000}

model: ## every interleaving of the protocols, and the planted mistakes that break them
	$(GO) test -count=1 -v -timeout 30m ./bench/model

clean: ## remove what build and demo made
	rm -rf bin out .msgctl
