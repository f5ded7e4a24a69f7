# The two commands of a newcomer: `make sweep` and `make test`. Each installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: sweep test lint clean

sweep: $(STAMP)
	$(BIN)/bench sweep --methods all --rates 0.1:0.9

# Some tests wait for processes that they start: one worker more than cores keeps the cores busy.
test: $(STAMP) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --dist worksteal \
		--numprocesses $$(($$(getconf _NPROCESSORS_ONLN) + 1))

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# torchaudio 2.11's wheel demands torch's CUDA build; pip resolves the pair from pyproject.toml.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[corpus,importers,test]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
