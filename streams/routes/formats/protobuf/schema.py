"""Messages of a Protobuf schema: their descriptors, and the wider schema with the added field."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from google.protobuf import (
    any_pb2,
    api_pb2,
    descriptor_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    source_context_pb2,
    struct_pb2,
    timestamp_pb2,
    type_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

from inferd.schemas.errors import InvalidValueError, SchemaMismatchError
from inferd.schemas.requests import OUTPUTS, OWN_OUTPUTS
from inferd.streams.routes.formats.library_errors import printable
from inferd.streams.routes.formats.protobuf.proto_file import OPTIONAL, ProtoFile, parse_proto
from inferd.streams.routes.formats.registered_schema import RegisteredSchema

MAIN = "inferd-route.proto"
STRUCT = "google/protobuf/struct.proto"
VALUE = "google.protobuf.Value"
WELL_KNOWN = {
    module.DESCRIPTOR.name: module.DESCRIPTOR.serialized_pb
    for module in (
        any_pb2, descriptor_pb2, source_context_pb2, type_pb2, api_pb2, duration_pb2, empty_pb2, field_mask_pb2,
        struct_pb2, timestamp_pb2, wrappers_pb2,
    )
}  # fmt: skip
"""Files that a schema may import without a reference, each after those that it imports."""
ADDED_NUMBER = 100_000
"""Of the added field, where it is free: far from the numbers of fields that a producer may add later."""
RESULT_NUMBERS = {
    name: number for number, name in enumerate((*OUTPUTS, OWN_OUTPUTS, "model_id", "version", "error"), 1)
}
"""The fields of a result."""
CARRIED_NUMBER = 16
"""Of the first carried field."""


@dataclass(frozen=True, slots=True)
class ProtobufSchema:
    """A schema and its main file."""

    file: ProtoFile
    text: str | None
    """None if it was given as a serialized descriptor."""
    pool: DescriptorPool

    def message(self, indexes: Sequence[int]) -> Descriptor:
        """The message at some indexes: of the file, of its nested messages, and so on. `SchemaMismatchError` if there
        is none."""
        return self.pool.FindMessageTypeByName(
            _full_name(self.file.descriptor, _located(self.file.descriptor, indexes))
        )

    def indexes_of(self, name: str | None) -> tuple[int, ...]:
        """The indexes of a message by its name, with or without the package; the only one of the file if None.

        `InvalidValueError` if there is none of that name, or several and no name.
        """
        top = self.file.descriptor.message_type
        if name is None:
            if len(top) != 1:
                listed = ", ".join(each.name for each in top[:20])
                raise InvalidValueError(f"the Protobuf schema has {len(top)} messages ({listed}): name one of them")
            return (0,)
        package = self.file.descriptor.package
        parts = name.removeprefix(".").removeprefix(f"{package}." if package else "").split(".")
        indexes: list[int] = []
        for part in parts:
            names = [each.name for each in top]
            if part not in names:
                raise InvalidValueError(f"the Protobuf schema has no message {name[:80]!r}")
            indexes.append(names.index(part))
            top = _declared(top[indexes[-1]])
        return tuple(indexes)


def parse_schema(schema: RegisteredSchema) -> ProtobufSchema:
    """Parse a schema and what it imports. `InvalidValueError` if it cannot be used."""
    pool = DescriptorPool()
    for serialized in WELL_KNOWN.values():
        pool.AddSerializedFile(serialized)
    file, text = _parse(schema.text, MAIN)
    try:
        for name, imported in schema.imported:
            if name not in WELL_KNOWN:
                pool.AddSerializedFile(_parse(imported, name)[0].descriptor.SerializeToString())
        pool.AddSerializedFile(file.descriptor.SerializeToString())
        pool.FindFileByName(file.descriptor.name)
    except (TypeError, KeyError, ValueError) as error:
        raise InvalidValueError(f"the Protobuf schema cannot be used: {printable(error)}") from None
    return ProtobufSchema(file, text, pool)


def _parse(text: str, name: str) -> tuple[ProtoFile, str | None]:
    """A file of text, or of a serialized descriptor in base64, as Confluent's client for Python registers it."""
    try:
        descriptor = FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
    except (binascii.Error, DecodeError, ValueError):
        try:
            return parse_proto(text, name), text
        except RecursionError:
            raise InvalidValueError("the Protobuf schema is nested too deep") from None
    descriptor.name = name
    return ProtoFile(descriptor), None


def widened(schema: ProtobufSchema, indexes: Sequence[int], field: str) -> tuple[str, int]:
    """The text of the schema with one more field in a message, and the number of the field.

    `SchemaMismatchError` if the message has the field already.
    """
    message = _located(schema.file.descriptor, indexes)
    if any(each.name == field for each in message.field):
        raise SchemaMismatchError(f"record: it has the field {field!r} already; the route adds a field of this name")
    number, name = _free_number(message), _free_name(message)
    if schema.text is None:
        return _widened_descriptor(schema.file.descriptor, indexes, field, number, name), number
    label = "" if schema.file.descriptor.syntax == "proto3" else "optional "
    added = f"{_declaration(name, label)}  {label}{name} {field} = {number};\n"
    end = schema.file.ends[tuple(indexes)]
    text = f"{schema.text[:end]}{added}{schema.text[end:]}"
    if STRUCT in schema.file.descriptor.dependency:
        return text, number
    at = schema.file.import_at
    return f'{text[:at]}\nimport "{STRUCT}";\n{text[at:]}', number


def result_schema(topic: str, carried: Sequence[str]) -> tuple[str, str]:
    """The text of the schema of results with carried fields, and the full name of its message."""
    name = "Result_" + "".join(each if each.isalnum() and each.isascii() else "_" for each in topic)
    fields = "".join(f"  {VALUE} {each} = {number};\n" for number, each in enumerate(carried, CARRIED_NUMBER))
    body = _declaration(name, "").rstrip().removesuffix("}").rstrip() + f"\n{fields}}}\n"
    return f'syntax = "proto3";\npackage ai.inferd;\nimport "{STRUCT}";\n{body}', f"ai.inferd.{name}"


def _declaration(name: str, label: str) -> str:
    lines = [f"  {label}{VALUE} {each} = {RESULT_NUMBERS[each]};" for each in OUTPUTS]
    return "\n".join((
        f"message {name} {{",
        f"  message Error {{ {label}string code = 1; {label}string message = 2; }}",
        *lines,
        f"  map<string, {VALUE}> {OWN_OUTPUTS} = {RESULT_NUMBERS[OWN_OUTPUTS]};",
        f"  {label}string model_id = {RESULT_NUMBERS['model_id']};",
        f"  {label}int64 version = {RESULT_NUMBERS['version']};",
        f"  {label}Error error = {RESULT_NUMBERS['error']};",
        "}\n",
    ))  # fmt: skip


def _widened_descriptor(file: FileDescriptorProto, indexes: Sequence[int], field: str, number: int, name: str) -> str:
    wider = FileDescriptorProto()
    wider.CopyFrom(file)
    message = _located(wider, indexes)
    full_name = _full_name(wider, message)
    message.nested_type.append(_resolved_declaration(file, full_name, name))
    message.field.add(
        name=field,
        number=number,
        label=OPTIONAL,
        type=FieldDescriptorProto.TYPE_MESSAGE,
        type_name=f".{full_name}.{name}",
    )
    if STRUCT not in wider.dependency:
        wider.dependency.append(STRUCT)
    return base64.b64encode(wider.SerializeToString()).decode()


def _resolved_declaration(file: FileDescriptorProto, within: str, name: str) -> DescriptorProto:
    """The message `name` within another, with the full names of all types."""
    proto3 = file.syntax == "proto3"
    body = _declaration(name, "" if proto3 else "optional ")
    parts = within.removeprefix(f"{file.package}." if file.package else "").split(".")
    for part in reversed(parts):
        body = f"message {part} {{ {body} }}"
    package = f"package {file.package};" if file.package else ""
    syntax = "proto3" if proto3 else "proto2"
    text = f'syntax = "{syntax}"; {package} import "{STRUCT}"; {body}'
    pool = parse_schema(RegisteredSchema("PROTOBUF", text)).pool
    resolved = FileDescriptorProto.FromString(pool.FindFileByName(MAIN).serialized_pb)
    return _located(resolved, [0] * (len(parts) + 1))


def _declared(message: DescriptorProto) -> list[DescriptorProto]:
    """The nested messages that are no entries of maps."""
    return [each for each in message.nested_type if not each.options.map_entry]


def _located(file: FileDescriptorProto, indexes: Sequence[int]) -> DescriptorProto:
    messages: Sequence[DescriptorProto] = file.message_type
    found: DescriptorProto | None = None
    for index in indexes:
        if not 0 <= index < len(messages):
            raise SchemaMismatchError(f"record: its schema has no message {'/'.join(map(str, indexes))[:40]}")
        found = messages[index]
        messages = _declared(found)
    if found is None:
        raise SchemaMismatchError("record: it names no message of its schema")
    return found


def _full_name(file: FileDescriptorProto, message: DescriptorProto) -> str:
    path = _path_to(file.message_type, message)
    return ".".join((*([file.package] if file.package else []), *path))


def _path_to(messages: Iterable[DescriptorProto], wanted: DescriptorProto) -> list[str]:
    for each in messages:
        if each is wanted:
            return [each.name]
        if below := _path_to(each.nested_type, wanted):
            return [each.name, *below]
    return []


def _free_number(message: DescriptorProto) -> int:
    taken = {each.number for each in message.field}
    ranges = [(each.start, each.end) for each in (*message.reserved_range, *message.extension_range)]
    number = ADDED_NUMBER
    while number in taken or any(start <= number < end for start, end in ranges):
        number += 1
    return number


def _free_name(message: DescriptorProto) -> str:
    taken = {each.name for each in (*message.nested_type, *message.enum_type, *message.field)}
    name, number = "InferdPrediction", 1
    while name in taken:
        number += 1
        name = f"InferdPrediction{number}"
    return name
