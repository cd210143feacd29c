"""Parses .proto files of `proto2` and `proto3`: messages and enums, as far as their wire format depends on them.

Options, services and extensions are skipped. Type names are left to Google's library, which resolves and checks them.
The tests compare the result with that of protoc.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

from inferd.streams.routes.formats.protobuf.tokens import END, Tokens

SCALARS = {
    name: FieldDescriptorProto.Type.Value(f"TYPE_{name.upper()}")
    for name in (
        "double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64", "sfixed32",
        "sfixed64", "bool", "string", "bytes",
    )
}  # fmt: skip
OPTIONAL, REQUIRED, REPEATED = 1, 2, 3
LABELS = {"optional": OPTIONAL, "required": REQUIRED, "repeated": REPEATED}
NUMBER_MAX = (1 << 29) - 1


@dataclass(slots=True)
class ProtoFile:
    """A parsed file."""

    descriptor: FileDescriptorProto
    import_at: int = 0
    """Where an import may be inserted into the text."""
    ends: dict[tuple[int, ...], int] = field(default_factory=dict)
    """Where the closing brace of each message is, by the indexes of the message."""


def parse_proto(text: str, name: str) -> ProtoFile:
    """Parse the text of a file. `InvalidValueError` if it is none."""
    return _Parser(text, name).parse()


class _Parser:
    def __init__(self, text: str, name: str) -> None:
        self._tokens = Tokens(text)
        self._file = ProtoFile(FileDescriptorProto(name=name))

    def parse(self) -> ProtoFile:
        tokens, file = self._tokens, self._file.descriptor
        while tokens.peek != END:
            at = tokens.peek
            if at == "message":
                self._message(file.message_type.add(), (len(file.message_type) - 1,))
            elif at == "enum":
                self._enum(file.enum_type.add())
            elif at in ("syntax", "edition", "package", "import"):
                self._statement(tokens.take())
            elif at == ";":
                tokens.take()
            elif at in ("option", "service", "extend"):
                tokens.skip_statement()
            else:
                raise tokens.error(f"unexpected {at!r}")
        return self._file

    @property
    def _is_proto3(self) -> bool:
        return bool(self._file.descriptor.syntax == "proto3")

    def _statement(self, what: str) -> None:
        tokens, file = self._tokens, self._file.descriptor
        if what == "edition":
            raise tokens.error("editions are not supported; proto2 and proto3 are")
        if what == "package":
            file.package = tokens.name()
        elif what == "syntax":
            tokens.expect("=")
            syntax = tokens.text()
            if syntax not in ("proto2", "proto3"):
                raise tokens.error(f"unknown syntax {syntax!r}")
            if syntax == "proto3":
                file.syntax = syntax
        else:
            public = tokens.taken("public")
            _ = public or tokens.taken("weak")
            if public:
                file.public_dependency.append(len(file.dependency))
            file.dependency.append(tokens.text())
        tokens.expect(";")
        if what == "syntax":
            self._file.import_at = tokens.last_end

    def _message(self, message: DescriptorProto, indexes: tuple[int, ...]) -> None:
        tokens = self._tokens
        tokens.expect("message")
        message.name = tokens.word()
        tokens.expect("{")
        while tokens.peek != "}":
            self._member(message, indexes)
        self._file.ends[indexes] = tokens.start
        tokens.expect("}")
        self._add_synthetic_oneofs(message)

    def _member(self, message: DescriptorProto, indexes: tuple[int, ...]) -> None:
        tokens, at = self._tokens, self._tokens.peek
        if at == "message":
            # The messages that stand for the entries of maps are not declared, and have no index.
            declared = sum(not each.options.map_entry for each in message.nested_type)
            self._message(message.nested_type.add(), (*indexes, declared))
        elif at == "enum":
            self._enum(message.enum_type.add())
        elif at == "oneof":
            self._oneof(message)
        elif at in ("reserved", "extensions"):
            self._ranges(message, tokens.take())
        elif at in ("option", "extend"):
            tokens.skip_statement()
        elif at == ";":
            tokens.take()
        else:
            self._field(message, None)

    def _ranges(self, message: DescriptorProto, what: str) -> None:
        """Reserved numbers and names, or numbers of extensions; their options are skipped."""
        tokens = self._tokens
        ranges = message.reserved_range if what == "reserved" else message.extension_range
        while not tokens.taken(";"):
            if tokens.peek == "[":
                tokens.skip_statement()
                return
            if tokens.peek_kind == "text":
                message.reserved_name.append(tokens.text())
            elif tokens.peek_kind == "word":
                message.reserved_name.append(tokens.word())
            else:
                first = last = tokens.integer()
                if tokens.taken("to"):
                    last = NUMBER_MAX if tokens.taken("max") else tokens.integer()
                ranges.add(start=first, end=min(last, NUMBER_MAX) + 1)
            _ = tokens.taken(",")

    def _oneof(self, message: DescriptorProto) -> None:
        tokens = self._tokens
        tokens.expect("oneof")
        message.oneof_decl.add(name=tokens.word())
        index = len(message.oneof_decl) - 1
        tokens.expect("{")
        while not tokens.taken("}"):
            if tokens.peek == "option":
                tokens.skip_statement()
            elif not tokens.taken(";"):
                self._field(message, index)

    def _field(self, message: DescriptorProto, oneof: int | None) -> None:
        tokens = self._tokens
        made = FieldDescriptorProto(label=OPTIONAL)
        label = tokens.peek
        if oneof is None and label in LABELS:
            tokens.take()
            made.label = LABELS[label]
        if tokens.peek == "group":
            raise tokens.error("groups are not supported")
        if oneof is None and tokens.peek == "map":
            entry = self._map_type(made)
        else:
            entry = None
            self._type(made, tokens.name())
        made.name = tokens.word()
        tokens.expect("=")
        made.number = tokens.integer()
        if entry is not None:
            self._add_entry(message, made, entry)
        self._field_options(made)
        tokens.expect(";")
        if oneof is not None:
            made.oneof_index = oneof
        elif label == "optional" and self._is_proto3:
            made.proto3_optional = True
        message.field.append(made)

    def _type(self, made: FieldDescriptorProto, name: str) -> None:
        if name in SCALARS:
            made.type = SCALARS[name]
        else:
            made.type_name = name

    def _map_type(self, made: FieldDescriptorProto) -> DescriptorProto:
        tokens = self._tokens
        tokens.expect("map")
        tokens.expect("<")
        entry = DescriptorProto()
        for number, name in ((1, "key"), (2, "value")):
            self._type(entry.field.add(name=name, number=number, label=OPTIONAL), tokens.name())
            tokens.expect("," if number == 1 else ">")
        entry.options.map_entry = True
        made.label = REPEATED
        return entry

    @staticmethod
    def _add_entry(message: DescriptorProto, made: FieldDescriptorProto, entry: DescriptorProto) -> None:
        entry.name = "".join(part[:1].upper() + part[1:] for part in made.name.split("_")) + "Entry"
        made.type_name = entry.name
        message.nested_type.append(entry)

    def _field_options(self, made: FieldDescriptorProto) -> None:
        tokens = self._tokens
        if not tokens.taken("["):
            return
        while True:
            name = self._option_name()
            tokens.expect("=")
            if name == "default":
                negative = "-" if tokens.taken("-") else ""
                made.default_value = tokens.text() if tokens.peek_kind == "text" else negative + tokens.take()
            else:
                self._skip_value()
            if not tokens.taken(","):
                break
        tokens.expect("]")

    def _option_name(self) -> str:
        tokens = self._tokens
        parts: list[str] = []
        while tokens.peek != "=":
            parts.append(tokens.take())
        return "".join(parts)

    def _skip_value(self) -> None:
        """An option's value: a constant, or an aggregate in braces."""
        tokens, depth = self._tokens, 0
        while depth or tokens.peek not in (",", "]"):
            taken = tokens.take()
            depth += (taken in "{[") - (taken in "}]")

    def _enum(self, enum: EnumDescriptorProto) -> None:
        tokens = self._tokens
        tokens.expect("enum")
        enum.name = tokens.word()
        tokens.expect("{")
        while not tokens.taken("}"):
            if tokens.peek == "option":
                self._enum_option(enum)
            elif tokens.peek == "reserved":
                tokens.skip_statement()
            elif not tokens.taken(";"):
                name = tokens.word()
                tokens.expect("=")
                enum.value.add(name=name, number=tokens.integer())
                if tokens.peek == "[":
                    tokens.skip_statement()
                else:
                    tokens.expect(";")

    def _enum_option(self, enum: EnumDescriptorProto) -> None:
        tokens = self._tokens
        tokens.expect("option")
        if tokens.peek != "allow_alias":
            tokens.skip_statement()
            return
        tokens.take()
        tokens.expect("=")
        enum.options.allow_alias = tokens.take() == "true"
        tokens.expect(";")

    def _add_synthetic_oneofs(self, message: DescriptorProto) -> None:
        """Each `optional` field of proto3 is the only one of a oneof."""
        for each in message.field:
            if each.proto3_optional:
                name = f"_{each.name}"
                taken = {other.name for other in (*message.field, *message.oneof_decl)}
                while name in taken:
                    name = f"X{name}"
                each.oneof_index = len(message.oneof_decl)
                message.oneof_decl.add(name=name)
