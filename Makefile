# Everything a user or developer types. Any target, run first on a fresh clone, sets up what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SWEEP := $(BIN)/sweep
FILE ?= configs/thesis.yaml
# Many tests start processes of their own; more than two at once would need more memory than a laptop has.
PYTEST := $(BIN)/pytest -n 2 --dist loadgroup
# One whole sweep, from its file to tables.
SMOKE := tests/sweep/submit/test_local_sweep.py::test_a_sweep_goes_from_its_file_to_tables_and_a_second_submit_does_nothing
REQUIREMENTS := requirements.txt
QUICKSTART := configs/quickstart.yaml
DRAWN := data/quickstart
CLUSTER ?= .cluster

.PHONY: help setup sweep quickstart status retry tables figures report cluster cluster-stop bench gpu-check \
	test torture check test-slurm test-python test-torch fast version format requirements clean

help:
	@echo "make sweep    the main job: FILE on Slurm where there is a cluster, otherwise 'make quickstart'"
	@echo "make quickstart  a small sweep on this machine, end to end to tables"
	@echo "make status   how the runs of FILE stand        (FILE=configs/thesis.yaml)"
	@echo "make retry    try the failed runs of FILE again"
	@echo "make tables   write the tables of FILE      make figures   draw its figures      make report   all in one page"
	@echo "make cluster  start real Slurm on this machine, in CLUSTER=.cluster; needs root      make cluster-stop  end it"
	@echo "make bench    measure the trainer beside Lightning; QUICK=1 for a rough look"
	@echo "make gpu-check OUT=folder  check the trainer on a GPU in eight minutes; REHEARSE=1 tries the check on the CPU"
	@echo "make test     all tests      make check    lint, types, fast tests      make torture  the faults, in great numbers"
	@echo "make test-slurm VERSION=trixie    the tests on Slurm with that of Debian bookworm, trixie or sid; needs root"
	@echo "make test-python VERSION=3.13     the fast tests and a sweep on another Python"
	@echo "make test-torch VERSION=2.9.1     the fast tests and a sweep on another torch"

setup: $(VENV)/ready

# torch 2.7.1 is the newest whose wheel serves both P100 and V100; the pins are in requirements.txt.
$(VENV)/ready: $(REQUIREMENTS) pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "sweep needs Python 3.10 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(REQUIREMENTS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

# What tests, lint and types need besides; nobody who only runs a sweep waits for it.
$(VENV)/dev: requirements-dev.txt $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $< -c $(REQUIREMENTS)
	touch $@

# On a cluster's login node the study; elsewhere the quickstart, end to end to tables. Slurm's packages alone, without a
# slurm.conf, make no login node.
sweep: setup
	@if command -v sbatch >/dev/null && ! scontrol ping 2>&1 | grep -q 'configuration source'; then \
		$(SWEEP) submit $(FILE) --yes; \
	else \
		$(MAKE) --no-print-directory quickstart; \
	fi

quickstart: setup $(DRAWN)/cifar10/manifest.json $(DRAWN)/tinyimagenet/manifest.json
	$(SWEEP) submit $(QUICKSTART) --yes
	$(SWEEP) tables $(QUICKSTART)

$(DRAWN)/cifar10/manifest.json: | setup
	$(SWEEP) data synthesize cifar10 --train 240 --val 100 --output $(DRAWN)/archives
	$(SWEEP) data prepare cifar10 --source $(DRAWN)/archives/synthetic-cifar-10-python.tar.gz --unofficial --data $(DRAWN)

$(DRAWN)/tinyimagenet/manifest.json: | setup
	$(SWEEP) data synthesize tinyimagenet --train 240 --val 100 --classes 20 --output $(DRAWN)/archives
	$(SWEEP) data prepare tinyimagenet --source $(DRAWN)/archives/synthetic-tiny-imagenet-200.zip --unofficial --data $(DRAWN)

status retry tables figures report: setup
	$(SWEEP) $@ $(FILE)

cluster: setup
	@$(BIN)/python -m slurm.private_cluster start $(CLUSTER)

cluster-stop: setup
	@$(BIN)/python -m slurm.private_cluster stop $(CLUSTER)

# The trainer beside its peer, on the device that is there: about half an hour on two cores, QUICK=1 about two minutes.
bench: $(VENV)/bench
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick)

$(VENV)/bench: benchmarks/requirements.txt $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $< -c requirements.txt
	touch $@

# With PYTHON where that has torch, as on most machines with a card; elsewhere with the environment of the other targets.
gpu-check:
	@if $(PYTHON) -c 'import torch' 2>/dev/null; then python='$(PYTHON)'; \
	else $(MAKE) --no-print-directory setup && python=$(BIN)/python; fi || exit; \
	exec $$python -m benchmarks.gpu_check --out $(or $(OUT),data/gpu-check/results) $(if $(REHEARSE),--rehearse) \
		$(if $(PARTS),--parts $(PARTS)) $(if $(WHEELS),--wheels $(WHEELS))

test: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST)

# The fault injection of 'make test' with its long counts, which it prints: kills, damaged files, full disks, two owners.
torture: $(VENV)/dev
	$(PYTEST) -m torture --torture

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) -m "not slow"

# The rest on other versions than those here, in places of their own; TESTS chooses some, delete the place when done.
TESTS := tests/slurm/test_private_cluster.py tests/cluster
test-slurm: version $(VENV)/dev
	tests/versions/debian.sh $(VERSION) $(VENV)/debian $(BIN)/python $(PYTEST) -m slurm $(TESTS)

test-python: version
	@mkdir -p $(VENV)
	python=$$(tests/versions/python.sh $(VERSION)) && \
		$(MAKE) --no-print-directory fast VENV=$(VENV)/python-$(VERSION) PYTHON="$$python"

# torchvision 0.22.1 is made for torch 2.7.1, 0.23.0 for 2.8.0, and so on.
test-torch: version
	@mkdir -p $(VENV)
	grep -vE '^(torch|torchvision|triton|nvidia-.*)==' requirements.txt > $(VENV)/torch-$(VERSION).txt
	echo $(VERSION) | awk -F. '{ print "torch==" $$0 "\ntorchvision==0." $$2 + 15 "." $$3 }' >> $(VENV)/torch-$(VERSION).txt
	$(MAKE) --no-print-directory fast VENV=$(VENV)/torch-$(VERSION) REQUIREMENTS=$(VENV)/torch-$(VERSION).txt

fast: $(VENV)/dev
	$(PYTEST) -m "not slow"
	$(PYTEST) $(SMOKE)

version:
	@$(if $(VERSION),true,echo "which version? make $(MAKECMDGOALS) VERSION=..., as in 'make help'" >&2; exit 2)

format: $(VENV)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The pins, for every Python the project supports; needs uv on PATH.
COMPILE := uv pip compile --quiet --universal --python-version 3.10 --no-annotate pyproject.toml
requirements:
	printf 'torch==2.7.1\ntorchvision==0.22.1\n' > $(VENV)/pins.txt
	$(COMPILE) --constraint $(VENV)/pins.txt --custom-compile-command "make requirements" --output-file requirements.txt
	cat requirements.txt requirements-dev.txt > $(VENV)/all.txt  # uv keeps the versions that it finds there
	$(COMPILE) --extra dev --constraint requirements.txt --no-header --output-file $(VENV)/all.txt
	echo "# What 'make test' adds to requirements.txt; 'make requirements' writes both." > requirements-dev.txt
	grep -vxFf requirements.txt $(VENV)/all.txt >> requirements-dev.txt

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
