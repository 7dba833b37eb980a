"""The clients of other languages: how each is built, and what it needs for that."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
CLIENTS = PROJECT / "clients"
# npm's codes for a registry that is not reached, or has not what was asked for.
NO_REGISTRY = (
    "ENOTFOUND|ETIMEDOUT|ERR_SOCKET_TIMEOUT|ECONNREFUSED|ECONNRESET|ENETUNREACH|EHOSTUNREACH|"
    r"EAI_AGAIN|E404|E429|E5\d\d"
)
BUILD_TIME = 500  # seconds, generous: others compile on the same cores


def needs(*tools: str) -> None:
    """Skip where a tool of the language is missing."""
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        pytest.skip(f"not installed here: {', '.join(missing)}")


def run(command: Sequence[object], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=BUILD_TIME,
        check=False,
    )


def build(command: Sequence[object], folder: Path) -> None:
    done = run(command, folder)
    assert done.returncode == 0, done.stdout + done.stderr


def copy_of(language: str, folder: Path) -> Path:
    """The client's folder and the proto beside it, copied to where it may be built."""
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was skipped
    for name in (language, "proto"):
        ignore = shutil.ignore_patterns("node_modules", "out")
        shutil.copytree(CLIENTS / name, folder / name, ignore=ignore)
    return folder / language


def node(make_once) -> list[object]:
    needs("node", "npm")

    def make(folder: Path) -> None:
        options = ("--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
        patience = ("--fetch-timeout=20000", "--fetch-retries=3", "--fetch-retry-mintimeout=1000")
        done = run(["npm", "ci", *options, *patience], copy_of("node", folder))
        if done.returncode and (reason := re.search(rf"\b({NO_REGISTRY})\b", done.stderr)):
            pytest.skip(f"npm cannot fetch the packages ({reason[1]})")
        assert done.returncode == 0, done.stderr

    return ["node", make_once("client_node", make) / "node" / "tag.js"]


def cpp(make_once) -> list[object]:
    needs("cmake", "g++", "protoc", "grpc_cpp_plugin")

    def make(folder: Path) -> None:
        source = copy_of("cpp", folder)
        # Unoptimised: it compiles in two thirds of the time.
        build(
            ["cmake", "-S", source, "-B", folder / "out", "-DCMAKE_CXX_FLAGS_RELEASE=-Werror"],
            folder,
        )
        build(["cmake", "--build", folder / "out"], folder)

    return [make_once("client_cpp", make) / "out" / "tag"]


def java(make_once) -> list[object]:
    needs("java", "javac", "protoc", "grpc_java_plugin")
    jars = ("grpc-netty", "netty-tcnative", "perfmark-api", "protobuf")
    if missing := [jar for jar in jars if not Path(f"/usr/share/java/{jar}.jar").exists()]:
        pytest.skip(f"not installed here: the Debian packages of {', '.join(missing)}")

    def make(folder: Path) -> None:
        build([copy_of("java", folder) / "build.sh"], folder)

    return [make_once("client_java", make) / "java" / "out" / "tag"]


def go(make_once) -> list[object]:
    needs("go", "protoc", "protoc-gen-go", "protoc-gen-go-grpc")
    packages = Path("/usr/share/gocode")
    if not (packages / "src" / "google.golang.org" / "grpc").exists():
        pytest.skip("not installed here: Debian's golang-google-grpc-dev")

    def make(folder: Path) -> None:
        source = copy_of("go", folder / "src").rename(folder / "src" / "ramclient")
        settings = ["GO111MODULE=off", f"GOPATH={folder}:{packages}"]
        build(["env", *settings, "go", "generate"], source)
        program = [folder / "tag", "ramclient/cmd/tag"]
        build(["env", *settings, "go", "build", "-tags", "debian", "-o", *program], source)

    return ["env", "GRPC_GO_RETRY=on", make_once("client_go", make) / "tag"]


def curl(make_once) -> list[object]:
    needs("bash", "curl", "jq", "base64")
    return [CLIENTS / "shell" / "tag-curl"]


def grpcurl(make_once) -> list[object]:
    needs("bash", "jq", "perl", "base64")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # pip installs a grpcurl
    return ["env", f"PATH={path}", CLIENTS / "shell" / "tag-grpcurl"]


BUILDERS = {"node": node, "cpp": cpp, "go": go, "java": java, "curl": curl, "grpcurl": grpcurl}
PROTOCOLS = {"curl": "http"}  # of the others "grpc"
