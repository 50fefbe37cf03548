# All commands of the project. `make` without arguments lists them.
PYTHON ?= python3
SAMPLE ?= buildings
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PREFECT_HOME ?= $(CURDIR)/.prefect

.PHONY: help install demo init check-data plan run report repro retrain serve promote rollback registry clean predict export ui lint test test-all test-crash test-damage \
  test-distributed docs hooks lock lr-range transfer bench bench-gpu
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  make %-17s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## .venv with the pinned packages
$(VENV)/.installed: requirements/base.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Error: $(PYTHON) is older than 3.11. Remedy: make PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv==0.13.8'
	@echo "Installing the pinned packages (about 6 GB, most of it torch with CUDA) ..."
	@$(BIN)/uv pip install --python $(BIN)/python --compile-bytecode --require-hashes -r requirements/base.lock
	@touch $@

demo: install ## train, compare and report on a sample: SAMPLE=buildings (default), vessels, ... SOURCE=folder
	@$(BIN)/python -m tasks configure $(SAMPLE) $(if $(SOURCE),--source "$(SOURCE)")
	@$(BIN)/python -m flows.compare

# an explicit SAMPLE merges that example into params.yaml first; `demo` has a default
CONFIGURE = $(if $(filter command environment,$(firstword $(origin SAMPLE))),$(BIN)/python -m tasks configure $(SAMPLE) $(if $(SOURCE),--source "$(SOURCE)"))

init: install ## look at a folder and write the section data of params.yaml: SOURCE=folder; OPTIONS=--force replaces your own
	@test -n "$(SOURCE)" || { echo "Error: no folder. Remedy: make init SOURCE=/path/to/folder"; exit 1; }
	@$(BIN)/python -m tasks init --source "$(SOURCE)" $(OPTIONS)

check-data: install ## check images and masks, write the data card; SAMPLE= SOURCE= as for demo
	@$(CONFIGURE)
	@$(BIN)/python -m tasks ingest --check

plan: install ## settings that are auto in params.yaml, with the reason of each; OPTIONS=--write puts them there
	@$(BIN)/python -m tasks plan $(OPTIONS)

run: install ## the whole comparison, through Prefect
	@$(BIN)/python -m flows.compare

report: install ## write the report of the last comparison again; OPTIONS=--measure on a quiet machine
	@$(BIN)/python -m tasks report $(OPTIONS)

repro: install ## the same comparison by DVC alone
	@$(BIN)/python -m tasks.versioning.lock_repair && $(BIN)/python -m tasks complete && $(BIN)/python -m dvc repro

retrain: install ## accept new images from the inbox, compare, decide on the champion; OPTIONS=--dry-run
	@$(BIN)/python -m flows.retrain $(OPTIONS)

serve: install ## retrain by the schedule of params.yaml, and what Prefect's UI starts, until Ctrl-C
	@$(BIN)/python -m flows.serve $(OPTIONS)

promote: install ## compare the models with the champion by the gate of params.yaml, promote and commit; BATCH= OPTIONS=--dry-run
	@$(BIN)/python -m tasks promote $(if $(BATCH),--batch "$(BATCH)") $(OPTIONS)

rollback: install ## return to the previous champion, commit it, renew the report
	@$(BIN)/python -m tasks promote --rollback

KEEP ?= 10
clean: install ## free disk space: runs, cached objects, leftovers older than the last KEEP=10 comparisons; OPTIONS=--dry-run
	@$(BIN)/python -m tasks clean --keep $(KEEP) $(OPTIONS)

registry: install ## compare registry and records; OPTIONS=--rebuild restores the registry, OPTIONS=--accept the records
	@$(BIN)/python -m tasks registry $(OPTIONS)

ARCHITECTURE ?= unet
lr-range: install ## learning-rate range test on the prepared data: ARCHITECTURE=unet
	@$(BIN)/python -m tasks lr-range $(ARCHITECTURE) $(OPTIONS)

transfer: install ## start trainings from a model of other data: FROM=../nuclei/models/unet-0 or models:/NAME@champion, OPTIONS=--clear
	@$(BIN)/python -m tasks transfer $(FROM) $(OPTIONS)

MODEL ?= champion
OUTPUT ?= predictions
predict: install ## predict new scenes: SCENES=folder MODEL=champion|models/unet-0|models:/NAME/3 OUTPUT=predictions OUTPUTS=classes,polygons,confidence; of models with objects: OUTPUTS=objects,coco,counts ZONES=file
	@test -n "$(SCENES)" || { echo "Error: no scenes. Remedy: make predict SCENES=/path/to/folder"; exit 1; }
	@$(BIN)/python -m flows.predict $(SCENES) --model "$(MODEL)" --output "$(OUTPUT)" $(if $(OUTPUTS),--outputs "$(OUTPUTS)") $(if $(ZONES),--count-by "$(ZONES)") $(OPTIONS)

FORMAT ?= onnx
export: install ## write a model as other files, compared with it: MODEL=champion|models/unet-0|models:/NAME/3 FORMAT=onnx,pt2,deepness OPTIONS="--output folder"
	@$(BIN)/python -m tasks export --model "$(MODEL)" --format "$(FORMAT)" $(OPTIONS)

ui: install ## the MLflow and Prefect UIs on this machine
	@$(BIN)/python -m flows.ui

lint: install ## ruff, mypy and the layers
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports --no-logo

# each worker gets whole files, in the order of tests/conftest.py; by default xdist begins with the files with most tests
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
test: lint ## lint, types, layers, unit tests, flows and three kills of a retraining (6 minutes)
	@$(PYTEST) -m 'not slow and not distributed'

test-all: test ## make test, then what it leaves out: bad inputs, ten kills, slow processes (12 minutes in all)
	@$(PYTEST) -m 'slow and not distributed'

test-crash: install ## kill a retraining at fifty random moments; KILLS=
	@SEGFLOW_KILLS=$(or $(KILLS),50) $(BIN)/python -m pytest -s -m slow tests/system/crash

test-damage: install ## try every command with every damaged file (an hour)
	@SEGFLOW_DAMAGES=all $(PYTEST) -m slow tests/system/damage

test-distributed: $(VENV)-cluster/.installed ## PostgreSQL, S3, Prefect, MLflow and two workers on this machine (10 minutes)
	@$(VENV)-cluster/bin/python -m pytest -m distributed tests/system/distributed
$(VENV)-cluster/.installed: requirements/base.lock requirements/cluster.lock | install
	@test -x $(VENV)-cluster/bin/python || $(PYTHON) -m venv $(VENV)-cluster
	@echo "Installing what a cluster needs into $(VENV)-cluster ..."
	@$(BIN)/uv pip install --python $(VENV)-cluster/bin/python --compile-bytecode --require-hashes -r requirements/base.lock -r requirements/cluster.lock
	@touch $@

docs: install $(VENV)-dev/.installed ## the documentation as a site: site/index.html
	@$(BIN)/python -m docs.generate
	@NO_MKDOCS_2_WARNING=1 $(VENV)-dev/bin/mkdocs build --strict --quiet && echo "docs: site/index.html"
$(VENV)-dev/.installed: requirements/dev.lock | install
	@test -x $(VENV)-dev/bin/python || $(PYTHON) -m venv $(VENV)-dev
	@echo "Installing MkDocs and pre-commit into $(VENV)-dev ..."
	@$(BIN)/uv pip install --python $(VENV)-dev/bin/python --compile-bytecode --require-hashes -r $<
	@touch $@

hooks: $(VENV)-dev/.installed ## run ruff and mypy before each commit in this clone
	@$(VENV)-dev/bin/pre-commit install

COMPILE = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -q
lock: ## pin the newest packages that pyproject.toml allows
	@$(COMPILE) pyproject.toml --extra test --extra export --extra openvino --extra timm --upgrade -o requirements/base.lock
	@$(COMPILE) pyproject.toml --extra bench -c requirements/base.lock -o requirements/bench.lock
	@$(COMPILE) pyproject.toml --extra cluster -c requirements/base.lock -o requirements/cluster.lock
	@$(COMPILE) --group dev -c requirements/base.lock -o requirements/dev.lock

# these compare with packages that only .venv-bench has
WITH_PEERS := data objects predict training
BENCHMARKS := data objects overhead predict published stitching training transfer
bench: $(if $(filter $(WITH_PEERS),$(WHAT)),$(VENV)-bench/.installed,install) ## measure WHAT=training|data|objects|predict|stitching|published|transfer|overhead; OPTIONS=--quick
	@test -n "$(filter $(BENCHMARKS),$(WHAT))" || { echo "Error: WHAT=$(WHAT) is no benchmark. Remedy: make bench WHAT=data, or one of: $(BENCHMARKS)"; exit 1; }
	@$(if $(filter $(WITH_PEERS),$(WHAT)),$(VENV)-bench,$(VENV))/bin/python -m benchmarks.$(WHAT) $(OPTIONS)
bench-gpu: install ## prove the CUDA path on one GPU (8 minutes): bench-gpu/results.md; without a GPU, on the CPU at small sizes
	@$(if $(wildcard $(VENV)-bench/.installed),$(VENV)-bench,$(VENV))/bin/python -m benchmarks.gpu $(OPTIONS)
$(VENV)-bench/.installed: requirements/bench.lock | install
	@test -x $(VENV)-bench/bin/python || $(PYTHON) -m venv $(VENV)-bench
	@echo "Installing what these benchmarks compare with into $(VENV)-bench ..."
	@$(BIN)/uv pip install --python $(VENV)-bench/bin/python --compile-bytecode --require-hashes -r $<
	@touch $@
