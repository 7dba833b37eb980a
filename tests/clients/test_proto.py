"""The clients' proto says of Triton's protocol what the server's own descriptors say."""

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from tritonclient.grpc import service_pb2

PROTO = Path(__file__).parents[2] / "clients" / "proto" / "inference.proto"


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> descriptor_pb2.FileDescriptorProto:
    output = tmp_path_factory.mktemp("proto") / "descriptors"
    grpcurl = Path(sys.executable).with_name("grpcurl")
    files = ["-import-path", PROTO.parent, "-proto", PROTO.name, "-protoset-out", output]
    subprocess.run([grpcurl, *files, "describe", "inference.ModelReadyRequest"], check=True)
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes()).file
    return file


@pytest.fixture(scope="module")
def tritons() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto()
    service_pb2.DESCRIPTOR.CopyToProto(file)
    return file


def fields_of(messages, prefix="") -> set[tuple[str, str, int, int, int, str]]:
    """Each field: message, name, number, label, type and, if it is a message, which."""
    fields = set()
    for message in messages:
        name = f"{prefix}.{message.name}"
        fields |= fields_of(message.nested_type, name)
        fields |= {(name, f.name, f.number, f.label, f.type, f.type_name) for f in message.field}
    return fields


def test_fields_have_tritons_names_numbers_and_types(ours, tritons):
    assert ours.package == tritons.package
    assert fields_of(ours.message_type) <= fields_of(tritons.message_type)


def test_methods_take_and_return_what_tritons_do(ours, tritons):
    (our_service,), (service,) = ours.service, tritons.service
    methods = {m.name: (m.input_type, m.output_type, m.client_streaming) for m in service.method}
    assert our_service.name == service.name
    for m in our_service.method:
        assert methods[m.name] == (m.input_type, m.output_type, m.client_streaming)
