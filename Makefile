# Everything runs in .venv, made by `make setup` from requirements/dev.txt; no target needs root or a system package.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-faults bench up down status logins dead-letters check proto client baseline lock clean console

VENV  := .venv
BIN   := $(VENV)/bin
LOCK  := requirements/dev.txt
STAMP := $(VENV)/.installed
# The versions that pyproject.toml allows, the one that the lock was tested with first. One that is only a shim of
# a version manager does not run and is passed over.
PYTHONS := $(or $(PYTHON),python3.11 python3.12 python3.13 python3)
PROTO_OUT := $(VENV)/proto
VALIDATE  := third_party/protovalidate
ARGS  ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export UV_SYSTEM_CERTS := 1
export UV_NO_PROGRESS := 1
export DO_NOT_TRACK := 1
# Where this is set, every process compiles all that it imports again: half of what starting one costs.
export PYTHONDONTWRITEBYTECODE :=

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  ARGS=...          more arguments for test, test-faults, bench, demo and dead-letters; PYTHON=... the Python for setup"

setup: $(STAMP) ## make .venv with everything, exactly as locked; nothing to do when nothing changed

$(STAMP): $(LOCK) pyproject.toml
	@PYTHONS="$(PYTHONS)" sh requirements/install.sh $(VENV) $(LOCK)
	@touch $@

demo: setup ## run the main job on real prices, show it, stop; results in build/demo
	@$(BIN)/python -m demo $(ARGS)

test: setup ## the whole suite with a bounded slice of the fault campaigns
	@$(BIN)/python -m pytest -n auto $(ARGS)

test-faults: setup ## the fault campaigns at full length
	@OPTAIC_FAULTS=full $(BIN)/python -m pytest -m faults $(ARGS)

bench: setup ## measure; print a table
	@$(BIN)/python tests/bench/run.py $(ARGS)

up: setup ## start the stack in the background, print every address; data of the last time is there again
	@$(BIN)/python -m devstack up

down: ## stop the stack; data stays in .state
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m devstack down; fi

status: ## what runs and what answers; exit status 0 if the stack is ready, else not
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m devstack status; fi

logins: ## print the users and passwords of Prefect's and MLflow's pages
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m devstack logins; fi

dead-letters: setup ## list, show or replay the events that services could not apply; ARGS="list"
	@$(BIN)/python -m devstack.dead_letters $(ARGS)

check: setup ## ruff, mypy --strict, import-linter, conventions, buf lint and breaking, stubs up to date; offline
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy shared services deploy demo
	MYPYPATH=tests $(BIN)/mypy tests
	$(BIN)/lint-imports
	PYTHONPATH=tests $(BIN)/python -m support.conventions
	$(BIN)/buf lint
	$(BIN)/buf breaking protos --exclude-imports --against protos/baseline.binpb
	@$(MAKE) --no-print-directory stubs-check

.PHONY: stubs stubs-check
stubs:
	@rm -rf $(PROTO_OUT) && mkdir -p $(PROTO_OUT)
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m grpc_tools.protoc -I protos -I $(VALIDATE) \
		--python_out=$(PROTO_OUT) --mypy_out=quiet:$(PROTO_OUT) buf/validate/validate.proto \
		$$(cd protos && find . -name '*.proto' | sed 's|^\./||' | sort)
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m grpc_tools.protoc -I protos -I $(VALIDATE) \
		--grpc_python_out=$(PROTO_OUT) --mypy_grpc_out=quiet:$(PROTO_OUT) \
		$$(cd protos && find . -name '*_service.proto' | sed 's|^\./||' | sort)
	@$(BIN)/python -m grpc_tools.protoc -I protos -I $(VALIDATE) \
		--include_source_info --descriptor_set_out=$(VENV)/contracts.binpb \
		$$(cd protos && find . -name '*.proto' | sed 's|^\./||' | sort)
	@$(BIN)/python -m gateway.comments $(VENV)/contracts.binpb $(PROTO_OUT)/optaic/comments.json

stubs-check: stubs
	@cd $(PROTO_OUT) && find . -type f | sort | while read -r file; do \
		cmp -s "$$file" "$(CURDIR)/shared/$$file" || { echo "$$file is not up to date: make proto"; exit 1; }; done
	@echo "stubs are up to date"

proto: setup stubs ## regenerate shared/optaic stubs from protos/
	@cp -R $(PROTO_OUT)/. shared/

client: setup ## regenerate the synchronous client from the asynchronous one, and docs/cli.md from the help texts
	PYTHONPATH=tests $(BIN)/python -m support.synchronous_client
	PYTHONPATH=tests $(BIN)/python -m support.command_line_page

console: setup ## rebuild the console from its sources and the contracts; needs node and npm
	cd services/gateway/console && npm ci --ignore-scripts --no-audit --no-fund \
		&& PATH="$(abspath $(BIN)):$$PATH" npm run generate && npm run check && npm run build

baseline: setup ## freeze the contracts and built-in definitions as they are: from now on checks compare with them
	$(BIN)/buf build protos --exclude-source-info -o protos/baseline.binpb
	PYTHONPATH=tests $(BIN)/python -m support.published_definitions

lock: setup ## resolve pyproject.toml again, keeping what need not move
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --all-extras pyproject.toml -c $(LOCK) -o $(LOCK)

clean: down ## remove what was built and what was stored: build, caches, .state (the data!), .venv
	rm -rf build dist .state .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis $(VENV)
