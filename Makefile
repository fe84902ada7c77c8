# opm: `make` builds, `make demo` shows, `make test` tests, `make install` installs.
#
# Honours CARGO, CARGO_TARGET_DIR, DESTDIR, PREFIX, and the directories below. BIN=PATH installs or
# shows that binary instead of building one.

CARGO ?= cargo
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
DOCDIR ?= $(PREFIX)/share/doc/opm
# `opm export` names the schema that is there.
DATADIR ?= $(PREFIX)/share/opm
UNITDIR ?= $(PREFIX)/lib/systemd
# Where each shell looks for what completes a command.
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
FISHDIR ?= $(PREFIX)/share/fish/vendor_completions.d
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
PYTHON ?= python3
INSTALL ?= install
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

ifdef CARGO_TARGET_DIR
export CARGO_TARGET_DIR
endif
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
ifdef BIN
BUILT =
else
BIN = $(TARGET_DIR)/release/opm
BUILT = release
endif

PAGES = $(wildcard man/*.[1-9])
EXAMPLES = $(wildcard man/examples/*)
UNITS = $(wildcard man/examples/*.service)

# Of the simulator: SEED=N replays one seed with a trace; SEEDS=N runs so many, from FIRST on.
SEED ?=
SEEDS ?=
FIRST ?=
MINUTES ?= 5
# Of the benchmark: ROWS=ls,stop measures only these, and leaves RESULTS.md as it is.
ROWS ?=
FIGURES = $(TARGET_DIR)/bench/last.json

.PHONY: all release check test needs model sim chaos real lint fmt doc man bench bench-restarts \
	bench-logs demo static install uninstall dist deb check-package check-arch picture clean golden

all: release

release:
	$(CARGO) build --release

# What every commit passes.
check: fmt-check lint doc man

.PHONY: fmt-check
fmt-check:
	$(CARGO) fmt --check

fmt:
	$(CARGO) fmt

lint:
	$(CARGO) clippy --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items
	$(CARGO) test --quiet --doc

# Style hints of mandoc are not errors; everything above them is.
man:
	mandoc -T lint -W warning $(PAGES)

# All tests: those beside the code, and those of tests/. A failure is tried once more, alone.
test: needs
	@sh tests/all.sh "$(CARGO)"

needs:
	@sh tests/needs.sh

model:
	$(CARGO) test --test model

sim:
	$(if $(SEED),SEED=$(SEED)) $(if $(SEEDS),SEEDS=$(SEEDS)) $(if $(FIRST),FIRST=$(FIRST)) \
		$(CARGO) test --test sim -- --nocapture

real: needs
	$(CARGO) test --test real

# New seeds until the time is over: the simulator, and kills on the real kernel.
chaos: needs
	CARGO="$(CARGO)" sh tests/chaos.sh $(MINUTES)

# Writes what the command line says now into its golden files; read the diff.
golden:
	OPM_GOLDEN=write $(CARGO) test --test cli
	OPM_GOLDEN=write $(CARGO) test --test unit schema

bench: $(BUILT)
	$(PYTHON) tests/bench/bench.py --opm "$(BIN)" $(if $(ROWS),--rows $(ROWS)) --json "$(FIGURES)"
	$(if $(ROWS),,$(PYTHON) tests/bench/bench.py --json "$(FIGURES)" --readme tests/bench/RESULTS.md)

# What clients notice of restarts under load: some ten minutes, beside PM2 if it is in PATH.
bench-restarts: $(BUILT)
	$(PYTHON) tests/bench/restarts.py --opm "$(BIN)"

# What it costs to have a service's output in a file.
bench-logs: $(BUILT)
	$(PYTHON) tests/bench/logs.py --opm "$(BIN)"

demo: $(BUILT)
	@sh tests/demo.sh "$(BIN)"

# A binary that needs no library, for images without any. Its path is the last line.
static:
	@sh tests/static.sh "$(CARGO)" "$(TARGET_DIR)"

# What make has built: whoever installs may have no cargo, and should not build as root.
install:
	@test -x "$(BIN)" || { echo "$(BIN) is not built (run make first)" >&2; exit 1; }
	$(INSTALL) -d "$(DESTDIR)$(BINDIR)"
	$(INSTALL) -m 755 "$(BIN)" "$(DESTDIR)$(BINDIR)/opm"
	for page in $(PAGES); do \
		section="$(DESTDIR)$(MANDIR)/man$${page##*.}"; \
		$(INSTALL) -d "$$section" && $(INSTALL) -m 644 "$$page" "$$section/" || exit; \
	done
	$(INSTALL) -d "$(DESTDIR)$(DOCDIR)/examples"
	$(INSTALL) -m 644 $(EXAMPLES) "$(DESTDIR)$(DOCDIR)/examples/"
	$(INSTALL) -d "$(DESTDIR)$(DATADIR)"
	$(INSTALL) -m 644 man/opm-file.schema.json "$(DESTDIR)$(DATADIR)/"
	for manager in system user; do \
		$(INSTALL) -d "$(DESTDIR)$(UNITDIR)/$$manager" || exit; \
		for unit in $(UNITS); do \
			to="$(DESTDIR)$(UNITDIR)/$$manager/$${unit##*/}"; \
			sed "s|/usr/local/bin/opm|$(BINDIR)/opm|" "$$unit" >"$$to" && chmod 644 "$$to" || exit; \
		done; \
	done
	$(INSTALL) -d "$(DESTDIR)$(BASHDIR)" "$(DESTDIR)$(FISHDIR)" "$(DESTDIR)$(ZSHDIR)"
	$(INSTALL) -m 644 src/cli/completions/opm.bash "$(DESTDIR)$(BASHDIR)/opm"
	$(INSTALL) -m 644 src/cli/completions/opm.fish "$(DESTDIR)$(FISHDIR)/opm.fish"
	$(INSTALL) -m 644 src/cli/completions/opm.zsh "$(DESTDIR)$(ZSHDIR)/_opm"

# Exactly what install put there, and then the directories it made, if they are empty: opm's own,
# and below DESTDIR those that lead to them.
uninstall:
	rm -f "$(DESTDIR)$(BINDIR)/opm" "$(DESTDIR)$(BASHDIR)/opm" \
		"$(DESTDIR)$(DATADIR)/opm-file.schema.json" \
		"$(DESTDIR)$(FISHDIR)/opm.fish" "$(DESTDIR)$(ZSHDIR)/_opm"
	for page in $(notdir $(PAGES)); do \
		rm -f "$(DESTDIR)$(MANDIR)/man$${page##*.}/$$page" || exit; \
	done
	for example in $(notdir $(EXAMPLES)); do \
		rm -f "$(DESTDIR)$(DOCDIR)/examples/$$example" || exit; \
	done
	for unit in $(notdir $(UNITS)); do \
		rm -f "$(DESTDIR)$(UNITDIR)/system/$$unit" "$(DESTDIR)$(UNITDIR)/user/$$unit" || exit; \
	done
	if [ -d "$(DESTDIR)" ]; then \
		cd "$(DESTDIR)" || exit; \
		for dir in "$(BINDIR)" "$(MANDIR)/man1" "$(MANDIR)/man5" "$(MANDIR)/man7" "$(MANDIR)/man8" \
			"$(DOCDIR)/examples" "$(DATADIR)" "$(UNITDIR)/system" "$(UNITDIR)/user" \
			"$(BASHDIR)" "$(FISHDIR)" "$(ZSHDIR)"; do \
			rmdir -p "$${dir#/}" 2>/dev/null || :; \
		done; \
	else \
		rmdir "$(DOCDIR)/examples" "$(DOCDIR)" "$(DATADIR)" "$(UNITDIR)/system" "$(UNITDIR)/user" \
			2>/dev/null || :; \
	fi

# The sources as they are committed, or as a release has them: the same bytes each time.
dist:
	@mkdir -p "$(TARGET_DIR)"
	@sh tests/package/dist.sh opm-$(VERSION) "$(TARGET_DIR)"

# A package for Debian and its kin of what is built.
deb:
	@test -x "$(BIN)" || { echo "$(BIN) is not built (run make first)" >&2; exit 1; }
	@mkdir -p "$(TARGET_DIR)"
	@sh tests/package/deb.sh "$(TARGET_DIR)" BIN="$(abspath $(BIN))"

# The README's picture, from a real run.
picture: $(BUILT)
	$(PYTHON) tests/package/picture.py "$(BIN)" tests/package/opm.svg

# What the package promises, in a Debian root that a real systemd boots; and README, word for word,
# in another one. Needs root; before each release: a minute, and a build's time.
check-package: $(BUILT)
	@mkdir -p "$(TARGET_DIR)"
	@one=$$(sh tests/package/deb.sh "$(TARGET_DIR)" BIN="$(abspath $(BIN))") && \
		two=$$(REVISION=2 sh tests/package/deb.sh "$(TARGET_DIR)" BIN="$(abspath $(BIN))") && \
		tarball=$$(sh tests/package/dist.sh opm-$(VERSION) "$(TARGET_DIR)") && \
		sh tests/package/check.sh "$$one" "$$two" "$$tarball"

# On other architectures: unit tests by qemu-user, and a machine of each that qemu-system boots.
# Four minutes each. ARCHES=riscv64 KERNEL=PATH BUSYBOX=PATH: with these.
check-arch:
	@for arch in $(or $(ARCHES),aarch64 riscv64); do \
		sh tests/arch/check.sh "$(abspath $(TARGET_DIR))" $$arch || exit; done

clean:
	$(CARGO) clean
