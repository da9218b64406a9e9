# make demo   real photos -> shards -> training -> evaluation -> submission -> report, in minutes, without a GPU
# make test   linters and the test suite, in the same virtual environment
# make docs   the documentation as a site, site/index.html
# make gpu    15 minutes on an NVIDIA GPU: is all as it should be there, and how fast
#
# PYTHON=python3.12 chooses the interpreter; CUDA=12 takes DALI's build for drivers older than 580.

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3,$(if $(shell $(p) -c 'import sys, venv; print(1 if sys.version_info >= (3, 11) else "")' 2>/dev/null),$(p))))
CUDA ?= 13

# Threads that wait for each other sleep instead of spinning: with another busy process beside it on 2 cores, the demo
# trained 7 images/s spinning and 50 sleeping.
export OMP_WAIT_POLICY ?= PASSIVE

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.installed-cuda$(CUDA)
PHOTOS := data/demo/photos
DATASET := data/demo/dataset
RUN := runs/demo
UNSEEN := data/demo/unseen
GENERAL := runs/demo-general
RUN_AND_DATA := --run $(RUN) --data $(DATASET)

.PHONY: gpu demo load docs test test-fast lint clean-demo

# Each command below would skip what it finished before; make saves starting it.
demo: load $(RUN)/eval-untrained.json $(GENERAL)/eval.json $(RUN)/submission.csv
	$(PY) report.py $(RUN_AND_DATA)
	@echo "Done: open $(RUN)/report.html in a browser. Answer photos of your own on a page, at http://127.0.0.1:8000:"
	@echo "  $(PY) -m retrieval serve $(DATASET) --run $(RUN)"

load:
	@awk -v cores=$$(nproc) '$$1 >= cores { print "The load average is " $$1 " on " cores " cores: other programs keep", \
		"them busy, and the demo takes longer than its 3 to 8 minutes." }' /proc/loadavg

$(RUN)/submission.csv: $(RUN)/eval.json
	$(PY) predict.py --run $(RUN) --index $(DATASET) --images $(PHOTOS)/test --out $@

# The last evaluations: both before and after training, also on the landmarks that it did not see.
$(RUN)/eval-untrained.json: $(RUN)/eval.json $(UNSEEN)/dataset.json
	$(PY) evaluate.py --run $(RUN) --data $(UNSEEN)
	$(PY) evaluate.py --run $(RUN) --data $(UNSEEN) --untrained
	$(PY) evaluate.py $(RUN_AND_DATA) --untrained

# The same network with PCA in its embedding, for landmarks that it did not see (docs/unseen-landmarks.md).
$(GENERAL)/eval.json: $(RUN)/eval.json $(UNSEEN)/dataset.json
	rm -rf $(GENERAL)
	$(PY) -m training generalize $(RUN) --data $(DATASET) --out $(GENERAL)
	$(PY) evaluate.py --run $(GENERAL) --data $(UNSEEN)
	$(PY) evaluate.py --run $(GENERAL) --data $(DATASET)

$(RUN)/eval.json: $(DATASET)/dataset.json
	$(PY) train.py --config configs/demo.yaml --data $(DATASET) --out $(RUN)
	$(PY) evaluate.py $(RUN_AND_DATA)

$(DATASET)/dataset.json: data/demo/samples.csv
	$(PY) preprocess/make_shards.py --samples $< --images $(PHOTOS) --out $(DATASET) --short-side 160

$(UNSEEN)/dataset.json: $(PHOTOS)/unseen.csv
	$(PY) preprocess/make_shards.py --samples $< --images $(PHOTOS) $(PHOTOS)/unseen --out $(UNSEEN) --short-side 160

data/demo/samples.csv: $(PHOTOS)/train.csv
	$(PY) preprocess/clean.py --csv $(PHOTOS)/train.csv --solution $(PHOTOS)/test_solution.csv \
		--min-images 15 --folds 5 --val-fold 0 --out $@

$(PHOTOS)/train.csv $(PHOTOS)/unseen.csv &: | $(READY)
	$(PY) preprocess/demo_data.py --out $(PHOTOS)

clean-demo:
	rm -rf data/demo $(RUN) $(GENERAL)

# What only a GPU can show, on the demo's full-size photos packed as Google Landmarks should be.
gpu: data/demo/short288/dataset.json
	$(PY) benchmarks/gpu.py --data data/demo/short288

data/demo/short288/dataset.json: data/demo/samples.csv
	$(PY) preprocess/make_shards.py --samples $< --images $(PHOTOS) --out data/demo/short288 --short-side 288

# Workers of pytest-xdist, each with files of its own: 2 cores take two thirds of one process's time.
PYTEST := $(PY) -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: lint
	$(PYTEST)

test-fast: $(READY)
	$(PYTEST) -m "not heavy"

lint: $(READY)
	$(PY) -m ruff check
	$(PY) -m mypy

docs: $(READY)
	$(PY) -m mkdocs build

# The install is remade when what it installs changes.
$(READY): setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 or newer with venv is needed and none was found: install one, or give PYTHON=..."; exit 2; }
	@echo "installing into $(VENV): a few minutes, about 7 GB with CUDA's libraries"
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[cuda$(CUDA),demo,test]'
	@rm -f $(VENV)/.installed-*
	@touch $@
