"""The container's files, as far as they can be checked without a container engine."""

import contextlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from dockerfile_parse import DockerfileParser
from ram_triton.doctor.memory import check_shared_memory
from ram_triton.doctor.repository_view import RepositoryView
from ram_triton.repository.layout import GPU, OPENVINO_BACKEND
from ram_triton.server.installation import Installation

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE, COMPOSE, START = (
    DEPLOY / "Dockerfile",
    DEPLOY / "compose.yaml",
    DEPLOY / "start_server.sh",
)
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


@pytest.fixture(scope="module")
def instructions():
    """(instruction, value) of each of the Dockerfile's."""
    parser = DockerfileParser(str(DOCKERFILE))
    return [
        (part["instruction"], part["value"])
        for part in parser.structure
        if part["instruction"] != "COMMENT"
    ]


@pytest.fixture(scope="module")
def service():
    return yaml.safe_load(COMPOSE.read_text())["services"]["ram"]


@pytest.fixture(scope="module")
def tritonservers_flags():
    """The flags that the real tritonserver says it knows."""
    wheel = Installation.find()
    done = subprocess.run(
        [wheel.program, "--help"],
        capture_output=True,
        text=True,
        env=os.environ | wheel.environment,
    )
    return set(FLAG.findall(done.stdout + done.stderr))


def tool(name, *arguments):
    command = [Path(sys.executable).with_name(name), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def values(instructions, name):
    return [value for instruction, value in instructions if instruction == name]


def test_a_dockerfile_linter_finds_nothing():
    done = tool("hadolint", DOCKERFILE)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("file", [COMPOSE, DEPLOY / "gateway" / "compose.yaml"])
def test_a_compose_file_is_one_by_composes_own_schema(file):
    done = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", file)
    assert done.returncode == 0, done.stdout


def test_the_start_script_is_a_shell_script_that_may_be_executed():
    assert subprocess.run(["sh", "-n", START]).returncode == 0
    assert os.access(START, os.X_OK)


def test_the_image_is_nvidias_at_a_pinned_release_without_the_known_hang(instructions):
    (image,) = values(instructions, "FROM")
    release = re.fullmatch(r"nvcr\.io/nvidia/tritonserver:(\d\d\.\d\d)-py3", image)
    assert float(release[1]) >= 26.07


def test_every_path_that_is_copied_exists_and_reaches_the_build(instructions):
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [source for value in values(instructions, "COPY") for source in value.split()[:-1]]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert f"!{source.split('/')[0]}" in ignored


def test_the_image_gets_the_versions_of_the_tests():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = [re.sub(r"\[\w+\]", "", pin).split("==") for pin in project["dependencies"]]
    assert {name: version(name) for name, _ in pins} == {name: pinned for name, pinned in pins}


def test_every_script_that_is_run_exists_and_knows_its_flags(instructions, service):
    commands = [json.loads(value) for value in values(instructions, "CMD")]
    (health,) = values(instructions, "HEALTHCHECK")
    commands += [json.loads(health.split("CMD ", 1)[1]), service["command"]]
    scripts = [word for command in commands for word in command if word.startswith("deploy/")]
    assert scripts == ["deploy/start_server.sh", "deploy/check_health.py", "deploy/start_server.sh"]
    assert all((ROOT / script).is_file() for script in scripts)


def test_the_image_has_our_backend_under_its_own_name_and_what_it_imports(instructions):
    source, target = f"build/backends/{OPENVINO_BACKEND}", "/opt/tritonserver/backends"
    assert f"{source} {target}/{OPENVINO_BACKEND}" in values(instructions, "COPY")
    assert (ROOT / source / "model.py").is_file()
    installs = [value for value in values(instructions, "RUN") if "pip install" in value]
    assert ".[${EXTRAS}]" in installs[0] and "EXTRAS=openvino" in values(instructions, "ARG")


def test_the_container_has_no_privileges_and_writes_to_its_mounts_alone(instructions, service):
    (user,) = values(instructions, "USER")
    assert "0" not in user.split(":") and "root" not in user
    assert service["user"] == f"${{RAM_USER:-{user}}}"
    assert service["read_only"] is True and service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service and "network_mode" not in service


def test_the_containers_memory_is_limited_and_more_than_its_shared_memory(service):
    limits = service["deploy"]["resources"]["limits"]
    memory, shared = (
        int(size.removesuffix("g")) for size in (limits["memory"], service["shm_size"])
    )
    assert memory >= 2 * shared and limits["pids"] > 0


def test_the_start_script_calls_make_plans_as_it_is_to_be_called():
    (line,) = [
        line for line in START.read_text().splitlines() if line.strip().startswith("ram-triton ")
    ]
    _, command, *arguments = shlex.split(line)
    told = tool("ram-triton", command, "--help")
    assert told.returncode == 0, told.stderr
    assert {word for word in arguments if word.startswith("--")} <= set(FLAG.findall(told.stdout))


def test_a_start_without_plans_and_tensorrt_says_so_and_starts_no_server(repository):
    if any(importlib.util.find_spec(name) for name in ("tensorrt", "tensorrt_bindings")):
        pytest.skip("TensorRT is installed here")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "MODEL_REPOSITORY": str(repository)}
    done = subprocess.run([START], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("ram-triton plans: ") and done.stderr.count("\n") == 1


def test_a_stop_while_plans_are_built_stops_the_building(tmp_path):
    building = tmp_path / "ram-triton"
    building.write_text("#!/bin/sh\necho $$\nexec sleep 600\n")
    building.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with subprocess.Popen([START], stdout=subprocess.PIPE, env=environment) as start:
        builder = int(start.stdout.readline())
        start.terminate()
        try:
            assert start.wait(30) == 143
            with pytest.raises(ProcessLookupError):
                os.kill(builder, 0)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(builder, signal.SIGKILL)


def test_make_plans_runs_with_what_the_image_holds(instructions, repository, tmp_path):
    if any(importlib.util.find_spec(name) for name in ("tensorrt", "tensorrt_bindings")):
        pytest.skip("TensorRT is installed here")
    for value in values(instructions, "COPY"):
        *sources, target = value.split()
        for source in sources:
            folder = tmp_path / target.lstrip("/")
            if (ROOT / source).is_dir():
                # Python puts its own files there, and renames them, while others of it run.
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / source, folder, ignore=ignore, dirs_exist_ok=True)
            else:
                folder.mkdir(exist_ok=True)
                shutil.copy(ROOT / source, folder)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(tmp_path / "build")}
    done = subprocess.run(
        ["make", "plans", f"REPOSITORY={repository}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.stderr.startswith("ram-triton plans: TensorRT is missing"), done.stderr


def test_tritonserver_knows_every_flag_that_it_is_given(instructions, service, tritonservers_flags):
    given = {word.split("=")[0] for word in service["command"][1:]}
    given |= {word.split("=")[0] for word in json.loads(values(instructions, "CMD")[-1])[1:]}
    assert {"--model-control-mode", "--allow-metrics"} <= given
    assert given <= tritonservers_flags


def test_the_start_script_starts_the_supervisor_as_it_is_to_be_called():
    (call,) = re.findall(r"^exec ram-triton (.*?) -- ", START.read_text(), re.M | re.S)
    told = tool("ram-triton", "serve", "--help").stdout
    assert set(FLAG.findall(call)) <= set(FLAG.findall(told)) and "--address 0.0.0.0" in call


def test_the_cpu_profile_needs_no_plans(tmp_path):
    program = tmp_path / "ram-triton"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "RAM_PROFILE": "cpu", "MODEL_REPOSITORY": "models"}
    done = subprocess.run([START, "--flag"], capture_output=True, text=True, env=environment)
    assert done.stdout.startswith("serve --repository models --profile cpu ")
    assert done.stdout.endswith(" -- --flag\n") and done.stdout.count("\n") == 1


def test_compose_builds_and_mounts_what_is_there(instructions, service):
    context = (COMPOSE.parent / service["build"]["context"]).resolve()
    assert context == ROOT
    assert (context / service["build"]["dockerfile"]) == DOCKERFILE
    (volume,) = service["volumes"]
    source, target = volume.split(":")
    assert (COMPOSE.parent / source).resolve() == ROOT / "model_repository"
    (workdir,) = values(instructions, "WORKDIR")
    assert target == f"{workdir}/model_repository"


def test_compose_publishes_ports_on_loopback_alone(service):
    assert service["ports"] == [f"127.0.0.1:{p}:{p}" for p in (8000, 8001, 8002, 8003)]


def test_composes_shared_memory_is_enough_for_the_largest_published_model(copied, service):
    manifest = json.loads((copied / "ram/1/manifest.json").read_text())
    manifest["variant"] |= {"image_size": 384, "num_tags": 4585, "image_width": 512}
    (copied / "ram/1/manifest.json").write_text(json.dumps(manifest))
    size = int(service["shm_size"].removesuffix("g")) * 2**30
    (finding,) = check_shared_memory(RepositoryView.read(copied, GPU), (size, size))
    assert str(finding.status) == "fine", finding.text
