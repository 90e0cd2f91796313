"""Protocol buffers written as text, without any schema."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

DEEPEST = 32
"""How many messages may be nested."""

TOKEN = re.compile(
    r"""
    (?P<space> [\s,;]+ | \#[^\n]* )
  | (?P<string> "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' )
  | (?P<word> [-+]?[\w.][\w.+-]* )
  | (?P<mark> [{}<>\[\]:] )
    """,
    re.VERBOSE | re.ASCII,
)

CLOSING = {"{": "}", "<": ">"}

ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "'": "'", "\\": "\\"}

Message = dict[str, list[Any]]
"""The values of each field in order: text, or messages."""


def parse(text: str) -> Message:
    """Return the outermost message.

    Raises
    ------
    ValueError
        If the text is no such message; the message says in which line.
    """
    tokens = _tokens(text)
    root: Message = {}
    open_messages: list[tuple[Message, str]] = [(root, "")]
    for line, kind, token in tokens:
        message, closing = open_messages[-1]
        if token == closing and kind == "mark":
            open_messages.pop()
            continue
        if kind != "word":
            raise ValueError(f"line {line}: found {token[:40]!r}, wanted a field")
        line, kind, mark = next(tokens, (line, "end", "the end"))
        values = message.setdefault(token, [])
        if mark == ":" and kind == "mark":
            line, kind, mark = next(tokens, (line, "end", "the end"))
            if kind in ("word", "string"):
                values.append(_text(kind, mark))
                continue
            if mark == "[" and kind == "mark":
                values.extend(_list(tokens, line))
                continue
        if kind != "mark" or mark not in CLOSING:
            raise ValueError(
                f"line {line}: found {mark[:40]!r} behind {token[:40]!r}, wanted a "
                "value"
            )
        if len(open_messages) > DEEPEST:
            raise ValueError(f"line {line}: messages nested deeper than {DEEPEST}")
        inner: Message = {}
        values.append(inner)
        open_messages.append((inner, CLOSING[mark]))
    if len(open_messages) > 1:
        raise ValueError(f"found the end, wanted {open_messages[-1][1]!r}")
    return root


def _tokens(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield line, kind and text of each token."""
    line = 1
    position = 0
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"line {line}: found {text[position : position + 20]!r}")
        kind = match.lastgroup or ""
        if kind != "space":
            yield line, kind, match.group()
        line += match.group().count("\n")
        position = match.end()


def _list(tokens: Iterator[tuple[int, str, str]], line: int) -> list[str]:
    found: list[str] = []
    for _, kind, token in tokens:
        if token == "]" and kind == "mark":
            return found
        if kind == "mark":
            break
        found.append(_text(kind, token))
    raise ValueError(f"line {line}: a list without an end")


def _text(kind: str, token: str) -> str:
    if kind == "word":
        return token
    return re.sub(r"\\(.)", lambda match: ESCAPES.get(match[1], match[0]), token[1:-1])
