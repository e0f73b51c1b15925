# `make run` and `make test` are all a newcomer needs; each sets up what it needs first.
PYTHON ?= python3
ASOF := .venv/bin/asof
PY := .venv/bin/python
WORKERS ?= 3

.PHONY: help setup run test check lint types imports schemas lock bench chaos meta-ingest meta-refresh wheels images secrets clean

help:            ## list what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ \t/' | expand -t 16

setup:           ## make .venv with everything, tests included
	@$(PYTHON) locks/install.py dev

.PHONY: setup-run
setup-run:
	@$(PYTHON) locks/install.py run

run: setup-run   ## the demo: one event to a blocked verdict, then to a promoted one, offline
	@$(ASOF) demo

test: setup      ## every test
	@$(PY) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

check: setup     ## lint, types, import rules, schemas
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@.venv/bin/lint-imports --no-cache

schemas: setup   ## write docs/events from the event models
	@$(PY) docs/events/export.py

lock:            ## resolve every lock file anew (needs uv)
	@$(PYTHON) locks/compile.py

bench: setup     ## every benchmark, side by side with what you would pick instead
	@for file in benchmarks/*.py; do echo "== $$file"; $(PY) $$file || exit 1; done

# SEED=7 starts another campaign; the same command goes on after the last recorded leg.
SEED ?= 1
MINUTES ?= 60
FAULTS ?= 10000
chaos: setup     ## random faults in seeded legs of a minute, for MINUTES=60 or until FAULTS=10000
	@$(PY) -m tests.faults.bus_chaos --seed $(SEED) --minutes $(MINUTES) --faults $(FAULTS)

meta-ingest: setup-run  ## metadata of the symbols in CANDIDATES_FILE=…
	@test -n "$(CANDIDATES_FILE)" || { echo "say which symbols: make meta-ingest CANDIDATES_FILE=candidates.json"; exit 2; }
	@$(ASOF) run "$(CANDIDATES_FILE)" --stages metadata --workers $(WORKERS)

meta-refresh: setup-run ## metadata of every active symbol of the catalog
	@$(ASOF) refresh --workers $(WORKERS)

wheels:          ## fetch the wheels that the images install, outside the image build
	@$(PYTHON) locks/wheels.py

# One password for each user of Redis, as shared/bus/access.py names them.
REDIS_USERS := fetcher catalog features auditor cli
secrets:         ## make the secret files that compose mounts (the folder is private; a container reads as its own user)
	@mkdir -p secrets && chmod 700 secrets
	@umask 022; for user in $(REDIS_USERS); do test -s secrets/redis_$$user || \
		$(PYTHON) -c 'import secrets; print(secrets.token_urlsafe(32), end="")' > secrets/redis_$$user || exit 1; done

images: wheels secrets  ## build the images of compose
	@docker-compose --profile cli build 2>/dev/null || docker compose --profile cli build

clean:           ## remove the lakehouse of the demo
	@rm -rf data/demo
