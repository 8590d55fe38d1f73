# make run    a virtual machine is provisioned before your eyes   (BREAK=roothash|config|disk, SUITE=trixie|sid)
# make test   everything, nothing skipped
# make build  the program, static, in bin/
# make bench  size and speed, beside a floor             (ONLY="size start inline remote large boot", JSON=1)
# make lint   gofmt, go vet, staticcheck

GO      ?= go
RELEASE := $(shell git describe --tags --always --dirty 2>/dev/null)
# Functions are aligned to 16 bytes and not to 32: a hundredth of the program less.
LDFLAGS := -s -w -funcalign=16 -X main.release=$(RELEASE)
# HTTP/2 is half a megabyte, and nothing that a machine fetches at boot needs it.
TAGS    := nethttpomithttp2

# A guest has two processors: as many run side by side as the machine has pairs. With more the
# kernels of the guests see their processors stand still.
GUESTS  = $$(( ($$(nproc) + 1) / 2 ))

# What needs no virtual machine runs first.
PACKAGES = $$($(GO) list ./... | grep -v -e /tests/vm -e /tests/lab -e /tests/premise)

.PHONY: run test build bench lint

build:
	CGO_ENABLED=0 $(GO) build -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)' -o bin/pilotlight ./cmd/pilotlight

run:
	@$(GO) run ./tests/run --break '$(BREAK)' --suite '$(or $(SUITE),trixie)'

test: lint
	@$(GO) run ./tests/count -count=1 $(PACKAGES) -- -count=1 -p=1 -parallel=$(GUESTS) -timeout=50m ./tests/premise ./tests/lab ./tests/vm

bench:
	@$(GO) run ./tests/bench $(if $(JSON),--json) $(ONLY)

lint:
	@bad=$$(gofmt -l cmd config initrd providers stages tests); if [ -n "$$bad" ]; then echo "gofmt: $$bad" >&2; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
