# On a fresh machine: `make demo`, `make test`, `make label STUDIES=...`. Everything lives in .venv and out/.
SHELL := /bin/bash
PYTHON ?= $(firstword $(foreach p,python3.11 python3 python,$(shell $(p) -c 'import sys; sys.version_info[:2] == (3, 11) and print("$(p)")' 2>/dev/null)))
PY := .venv/bin/python
BUNDLE := $(CURDIR)/bundle
SMALL := "['$(BUNDLE)/configs/inference.json','$(BUNDLE)/configs/small.json']"
DEMO := out/demo
PHANTOM := $(DEMO)/phantom_3000

# the user's own image and prompts: make demo IMAGE=ct.nii.gz TEXT="liver" BOX="[100,60,20,220,180,60]"
IMAGE ?=
USER_PROMPTS = $(if $(TEXT),--text "$(TEXT)") $(if $(BOX),--box "$(BOX)") $(if $(POINTS),--points "$(POINTS)") \
	$(if $(POINT_LABELS),--point_labels "$(POINT_LABELS)") $(if $(COORDINATES),--coordinates $(COORDINATES)) \
	$(if $(PROMPTS),--prompts "$(PROMPTS)")

# the MONAI Label server: make label STUDIES=folder-or-url [HOST=0.0.0.0] [PORT=8000] [CONF="--conf size base"]
STUDIES ?=
HOST ?= 127.0.0.1
PORT ?= 8000
CONF ?=

.PHONY: setup demo test label lint clean

setup: .venv/.plain

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "make needs Python 3.11: install it, or name one with PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.plain: pyproject.toml | .venv/bin/python
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet .
	@touch $@

.venv/.label: .venv/.plain
	$(PY) -m pip install --quiet ".[label]"
	@touch $@

.venv/.dev: .venv/.label
	$(PY) -m pip install --quiet ".[train,data,label,dev]"
	@touch $@

demo: setup
ifeq ($(strip $(IMAGE)),)
	cd $(BUNDLE) && $(CURDIR)/$(PY) -m scripts.phantom $(CURDIR)/$(DEMO) --seed 3000 --split demo
	$(PY) -m monai.bundle run --config_file $(SMALL) --bundle_root $(BUNDLE) \
		--image $(PHANTOM)/ct.nii.gz --prompts $(PHANTOM)/prompts.json --output_dir $(DEMO)
else
	$(PY) -m monai.bundle run --config_file $(SMALL) --bundle_root $(BUNDLE) \
		--image "$(IMAGE)" $(USER_PROMPTS) --output_dir $(DEMO)
endif

label: .venv/.label
	@test -n "$(STUDIES)" || { echo "make label needs STUDIES=folder of images, or the URL of a DICOMweb server" >&2; exit 1; }
	PYTHONPATH=$(CURDIR)/monailabel_app $(PY) -m monailabel.main start_server --app monailabel_app --studies "$(STUDIES)" \
		--uvicorn_app server:app --host $(HOST) --port $(PORT) $(CONF)

test: .venv/.dev
	$(PY) -m pytest $(PYTEST_ARGS)

lint: .venv/.dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

clean:
	rm -rf .venv out
