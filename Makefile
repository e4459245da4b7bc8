# Each target makes its own virtual environment in .venv when there is none.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
CAMPAIGN ?= discoveries
FLAGSHIP ?= runs/flagship

.PHONY: discover flagship test test-gpaw faults bench lint clean

discover: $(VENV)/installed          ## the whole method on the embedded known set; report in discoveries/report.html
	$(BIN)/opengnome discover $(CAMPAIGN)

flagship: $(FLAGSHIP)/known.parquet  ## six rounds with PAW-PBE, hours; killed, the same command goes on. Needs what test-gpaw needs
	$(BIN)/opengnome discover $(FLAGSHIP)/campaign --settings examples/flagship/campaign.toml \
	    --set known.source=$(FLAGSHIP)/known.parquet --set oracle.gpaw.folder=$(FLAGSHIP)/gpaw

# Made once: a known set that changed would be another campaign. Status 1: some crystals did not converge, and are left out.
$(FLAGSHIP)/known.parquet: | $(VENV)/installed
	CC=g++ $(BIN)/pip install --quiet -c constraints.txt -e ".[gpaw]"
	$(BIN)/python scripts/flagship_known_set.py $(FLAGSHIP)/known_inputs.parquet
	$(BIN)/opengnome relax $(FLAGSHIP)/known_inputs.parquet --oracle gpaw --functional pbe \
	    --set gpaw.prerelax=chgnet --set gpaw.kpoint_density=32 --set gpaw.folder=$(FLAGSHIP)/gpaw \
	    --set relaxation.timeout_s=3600 --output $(FLAGSHIP)/known.csv --relaxed $(FLAGSHIP)/relaxed.parquet \
	    || test $$? -eq 1
	mv $(FLAGSHIP)/relaxed.parquet $@

test: $(VENV)/developed              ## lint, types and all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest

test-gpaw: $(VENV)/developed        ## tests of the GPAW oracle; Debian: g++ libxc-dev libopenblas-dev
	CC=g++ $(BIN)/pip install --quiet -c constraints.txt -e ".[gpaw]"
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/oracles/test_gpaw_oracle.py

faults: $(VENV)/developed           ## kills, hangs, full memory, lost blocks, on processes, Parsl and a SLURM of its own; FAULT_KILLS=50
	$(BIN)/pip install --quiet -c constraints.txt -e ".[hpc]"
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/faults

bench: $(VENV)/developed             ## speed, side by side with peers; text in benchmarks/results
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/run_all.py

lint: $(VENV)/developed              ## format and check
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/mypy

clean:
	rm -rf $(VENV)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/developed: $(VENV)/installed
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@
