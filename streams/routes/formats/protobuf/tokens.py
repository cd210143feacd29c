"""Tokens of a .proto file."""

from __future__ import annotations

import re
from typing import NamedTuple

from inferd.schemas.errors import InvalidValueError

_TOKEN = re.compile(
    r"(?P<space>\s+|//[^\n]*|/\*.*?\*/)"
    r"|(?P<text>\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*')"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<number>0[xX][0-9A-Fa-f]+|[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<sign>[{}()\[\]<>;=,.:+\-/])",
    re.DOTALL,
)
END = ""
INTEGER_MAX = (1 << 31) - 1


class Token(NamedTuple):
    """A word, number, quoted text or sign, and where it is."""

    kind: str
    text: str
    start: int
    end: int


class Tokens:
    """The tokens of a text, one after another. Errors are `InvalidValueError` with the line."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._split(text))
        self._next = 0
        self.last_end = 0
        """Where the last token that was taken ends."""

    def _split(self, text: str) -> list[Token]:
        found: list[Token] = []
        at = 0
        while at < len(text):
            matched = _TOKEN.match(text, at)
            if matched is None:
                raise self.error_at(at, f"unexpected {text[at]!r}")
            kind = str(matched.lastgroup)
            if kind != "space":
                found.append(Token(kind, matched[0], at, matched.end()))
            at = matched.end()
        return found

    @property
    def peek(self) -> str:
        """The text of the next token; `END` after the last one."""
        return self._tokens[self._next].text if self._next < len(self._tokens) else END

    @property
    def peek_kind(self) -> str:
        """The kind of the next token."""
        return self._tokens[self._next].kind if self._next < len(self._tokens) else END

    @property
    def start(self) -> int:
        """Where the next token begins."""
        return self._tokens[self._next].start if self._next < len(self._tokens) else len(self._text)

    def take(self) -> str:
        """The next token."""
        if self._next >= len(self._tokens):
            raise self.error("the file ends within a declaration")
        token = self._tokens[self._next]
        self._next += 1
        self.last_end = token.end
        return token.text

    def taken(self, text: str) -> bool:
        """Takes the next token if it is this one."""
        if self.peek != text:
            return False
        self.take()
        return True

    def expect(self, text: str) -> None:
        """Takes this token."""
        if not self.taken(text):
            raise self.error(f"expected {text!r}, got {self.peek!r}")

    def word(self) -> str:
        """Takes a name without dots."""
        if self.peek_kind != "word":
            raise self.error(f"expected a name, got {self.peek!r}")
        return self.take()

    def name(self) -> str:
        """Takes a name, which may have dots, also a leading one."""
        parts = ["." if self.taken(".") else "", self.word()]
        while self.taken("."):
            parts += [".", self.word()]
        return "".join(parts)

    def integer(self) -> int:
        """Takes a whole number."""
        negative = self.taken("-")
        start, text = self.start, self.take()
        try:
            octal = len(text) > 1 and text[0] == "0" and text[1:].isdigit()
            value = int(text, 8) if octal else int(text, 0)
        except ValueError:
            raise self.error_at(start, f"expected a whole number, got {text!r}") from None
        if value > INTEGER_MAX:
            raise self.error_at(start, f"the number {text[:20]} has more than 32 bits")
        return -value if negative else value

    def text(self) -> str:
        """Takes a quoted text; several in a row are one."""
        if self.peek_kind != "text":
            raise self.error(f"expected a quoted text, got {self.peek!r}")
        parts = []
        while self.peek_kind == "text":
            parts.append(unquoted(self.take()))
        return "".join(parts)

    def skip_statement(self) -> None:
        """Takes everything up to the end of a statement: a semicolon, or a block in braces."""
        depth = 0
        while True:
            taken = self.take()
            if taken in ("{", "[", "("):
                depth += 1
            elif taken in ("}", "]", ")"):
                depth -= 1
                if depth == 0 and taken == "}" and self.peek != ";":
                    return
            elif taken == ";" and depth == 0:
                return

    def error(self, what: str) -> InvalidValueError:
        """An error at the next token."""
        return self.error_at(self.start, what)

    def error_at(self, at: int, what: str) -> InvalidValueError:
        """An error at a place of the text."""
        return InvalidValueError(f"the Protobuf schema, line {self._text.count(chr(10), 0, at) + 1}: {what[:200]}")


_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def unquoted(text: str) -> str:
    """The characters of a quoted text. Numeric escapes are those of characters below 256."""

    def escape(matched: re.Match[str]) -> str:
        code = matched[1]
        if code[0] in "xX":
            return chr(int(code[1:], 16))
        return chr(int(code, 8) & 0xFF) if code[0] in "01234567" else _ESCAPES.get(code, code)

    return re.sub(r"\\([xX][0-9A-Fa-f]{1,2}|[0-7]{1,3}|.)", escape, text[1:-1], flags=re.DOTALL)
