"""The text spelling: ``tags.arch in ('conv', 'attn') and not has(tags.deprecated) and created_at > now-7d``.

    search    = [ disjunction ]
    disjunction = conjunction { "or" conjunction }
    conjunction = factor { "and" factor }
    factor    = "not" factor | "(" disjunction ")" | term
    term      = field op value | field ["not"] "in" "(" value { "," value } ")" | field ["not"] "like" value
              | "has" "(" field ")" | "descends_from" "(" id [ "," "depth" "<=" number ] ")"
              | "compatible_with" "(" id ")" | "compatible_with" "(" operator "," shape "," shape ")"

A parser by recursive descent, one function a rule. Positions count characters from 1.
"""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from apps.core.errors import Invalid
from apps.kernels.search import relations
from apps.kernels.search.fields import FIELDS, KEYED, MEMBERS, RELATIVE_TIME, Kind, checked, field_named, is_storable
from apps.kernels.search.nodes import (
    EVERYTHING,
    MAX_DEPTH,
    MAX_TERMS,
    MAX_TEXT,
    MAX_VALUES,
    And,
    Compare,
    DescendsFrom,
    FitsContract,
    FitsSlot,
    Node,
    Not,
    Op,
    Or,
    Scalar,
    Term,
    is_everything,
)

POINTER = "/q"
MAX_PARENTHESES = 32
MAX_DIGITS = 40
OPERATORS = {
    "=": Op.EQ, "==": Op.EQ, "!=": Op.NE, "<>": Op.NE, "<": Op.LT, "<=": Op.LTE, ">": Op.GT, ">=": Op.GTE,
}  # fmt: skip
SIGNS = {Op.EQ: "=", Op.NE: "!=", Op.LT: "<", Op.LTE: "<=", Op.GT: ">", Op.GTE: ">="}
QUOTED = r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\""
QUOTED_OR_BARE = rf"(?:{QUOTED}|[A-Za-z_][A-Za-z0-9_-]*(?:\.[A-Za-z_][A-Za-z0-9_-]*)*)"
TOKEN = re.compile(
    rf"""(?P<space>\s+)
    |(?P<text>{QUOTED})
    |(?P<now>now\s*[+-]\s*[0-9]{{1,6}}[smhdw]\b|now\b(?!\.))
    |(?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![A-Za-z_0-9.]))
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.{QUOTED_OR_BARE})?)
    |(?P<sign><=|>=|!=|<>|==|[=<>(),])""",
    re.VERBOSE,
)
WORDS = frozenset({"and", "or", "not", "in", "like", "true", "false", "null"})


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str
    start: int

    @property
    def word(self) -> str:
        """A name in small letters; empty for anything else."""
        return self.text.lower() if self.kind == "name" else ""

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else f"{self.text!r:.60}"


def parse(text: str) -> Node:
    """The search that ``text`` spells; empty text finds everything.

    Raises:
        Invalid: pointer ``/q``; the message names the position, what stands there and what was expected.
    """
    if len(text) > MAX_TEXT:
        raise Invalid(f"has {len(text)} characters; at most {MAX_TEXT}", pointer=POINTER, code="too_long")
    if not is_storable(text):
        raise Invalid("holds a NUL or half of a surrogate pair", pointer=POINTER, code="syntax")
    if not text.strip():
        return EVERYTHING
    return _Parser(_tokens(text)).search()


def _tokens(text: str) -> list[Token]:
    found, at = [], 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            _fail(at, _lexical_fault(text, at), code="syntax")
        if match.lastgroup != "space":
            found.append(Token(str(match.lastgroup), match.group(), at))
        at = match.end()
    return [*found, Token("end", "", len(text))]


def _lexical_fault(text: str, at: int) -> str:
    if text[at] in "'\"":
        return f"the text that begins here has no closing {text[at]}"
    if text[at].isdigit() or text[at] == "-":
        return f"{text[at : at + 20]!r} is no number"
    return f"{text[at]!r} is not part of the language"


def _fail(at: int, message: str, *, code: str = "syntax") -> NoReturn:
    raise Invalid(f"position {at + 1}: {message}", pointer=POINTER, code=code)


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self.tokens, self.at, self.level, self.term_count = tokens, 0, 0, 0

    @property
    def next(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        token = self.next
        self.at += token.kind != "end"
        return token

    def expect(self, sign: str, where: str) -> Token:
        if self.next.text != sign or self.next.kind != "sign":
            self.wrong(f"{sign!r} {where}")
        return self.take()

    def wrong(self, expected: str) -> NoReturn:
        _fail(self.next.start, f"expected {expected}, found {self.next}")

    def search(self) -> Node:
        node = self.disjunction()
        if self.next.kind != "end":
            guess = _close(self.next.word, ("and", "or"))
            self.wrong(f"and, or, or the end{guess}")
        _check_depth(node)
        return node

    def disjunction(self) -> Node:
        return self.chain("or", self.conjunction, Or)

    def conjunction(self) -> Node:
        return self.chain("and", self.factor, And)

    def chain(self, word: str, part: Callable[[], Node], kind: type[And] | type[Or]) -> Node:
        nodes = [part()]
        while self.next.word == word:
            self.take()
            nodes.append(part())
        return kind(tuple(nodes)) if len(nodes) > 1 else nodes[0]

    def factor(self) -> Node:
        if self.next.word == "not":
            return self.deeper(lambda: Not(self.factor()))
        if self.next.text == "(" and self.next.kind == "sign":
            return self.deeper(self.group)
        return self.term()

    def deeper(self, part: Callable[[], Node]) -> Node:
        token = self.take()
        self.level += 1
        if self.level > MAX_PARENTHESES:
            _fail(token.start, f"nested deeper than {MAX_DEPTH} levels", code="too_deep")
        node = part()
        self.level -= 1
        return node

    def group(self) -> Node:
        node = self.disjunction()
        self.expect(")", "to close the parenthesis")
        return node

    def term(self) -> Node:
        token = self.next
        if token.kind != "name" or token.word in WORDS:
            self.wrong("a condition, such as tags.arch = 'conv'")
        self.term_count += 1
        if self.term_count > MAX_TERMS:
            _fail(token.start, f"more than {MAX_TERMS} conditions", code="too_many")
        function = FUNCTIONS.get(token.word)
        following = self.tokens[self.at + 1]
        if function is not None and following.text == "(":
            self.at += 2
            node = self.placed(token, lambda: function(self))
            self.expect(")", f"to close {token.word}")
            return node
        if following.text == "(" and "." not in token.text:
            _fail(token.start, f"{token.text!r:.60} is no function{_close(token.word, FUNCTIONS)}")
        return self.comparison()

    def placed(self, token: Token, make: Callable[[], Term]) -> Term:
        """What a check says, at the position of what it is about."""
        try:
            return make()
        except Invalid as error:
            if error.detail.startswith("position "):
                raise
            return _fail(token.start, error.detail, code=error.code)

    def comparison(self) -> Node:
        token = self.take()
        name = self.field(token)
        negated = self.next.word == "not"
        if negated:
            self.take()
        word = self.next.word
        if word == "in":
            self.take()
            op, values = Op.IN, self.values()
            node = self.placed(token, lambda: checked(Compare(name, op, values), pointer=POINTER))
        elif word == "like":
            self.take()
            pattern = self.value()
            node = self.placed(token, lambda: checked(Compare(name, Op.LIKE, pattern), pointer=POINTER))
        elif negated or self.next.text not in OPERATORS or self.next.kind != "sign":
            self.wrong("in or like" if negated else f"a comparison (=, !=, <, <=, >, >=, in, like) after {name}")
        else:
            sign = OPERATORS[self.take().text]
            value = self.value()
            node = self.placed(token, lambda: checked(Compare(name, sign, value), pointer=POINTER))
        return Not(node) if negated else node

    def field(self, token: Token) -> str:
        name = _unquoted_name(token.text)
        try:
            return field_named(name, pointer=POINTER).name
        except Invalid as error:
            return _fail(token.start, error.detail, code=error.code)

    def values(self) -> tuple[Scalar, ...]:
        self.expect("(", "before the values of in")
        values = [self.value()]
        while self.next.text == "," and self.next.kind == "sign":
            self.take()
            values.append(self.value())
            if len(values) > MAX_VALUES:
                _fail(self.next.start, f"more than {MAX_VALUES} values", code="too_many")
        self.expect(")", "to close the values of in")
        return tuple(values)

    def value(self) -> Scalar:
        token = self.next
        if token.kind == "text":
            return _unquoted(self.take().text)
        if token.kind == "number":
            return _number(self.take())
        if token.kind == "now":
            return "".join(self.take().text.split())
        if token.word in {"true", "false"}:
            return self.take().word == "true"
        if token.word == "null":
            _fail(token.start, "null equals nothing: write has(field) or not has(field)")
        hint = f"; write '{token.text:.60}' for a text" if token.kind == "name" else ""
        return self.wrong(f"a value (text in quotes, a number, true, false, now-7d){hint}")

    # --- Functions, behind their opening parenthesis

    def has(self) -> Term:
        token = self.take()
        if token.kind != "name":
            self.at -= token.kind != "end"
            self.wrong("a field")
        return checked(Compare(self.field(token), Op.HAS), pointer=POINTER)

    def descends_from(self) -> Term:
        reference = self.value()
        if self.next.text != ",":
            return relations.descends_from(reference, pointer=POINTER)
        self.take()
        if self.next.word != "depth":
            self.wrong("depth<=3")
        self.take()
        self.expect("<=", "after depth")
        return relations.descends_from(reference, self.value(), pointer=POINTER)

    def compatible_with(self) -> Term:
        first = self.value()
        if self.next.text != ",":
            return relations.fits_slot(first, pointer=POINTER)
        self.take()
        given = self.values()
        self.expect(",", "between the shapes of input and output")
        return relations.fits_contract(first, given, self.values(), pointer=POINTER)


FUNCTIONS: dict[str, Callable[[_Parser], Term]] = {
    "has": _Parser.has,
    "descends_from": _Parser.descends_from,
    "compatible_with": _Parser.compatible_with,
}


def _check_depth(node: Node, level: int = 0) -> None:
    if isinstance(node, And | Or | Not) and level == MAX_DEPTH:
        raise Invalid(f"and, or, not are nested deeper than {MAX_DEPTH} levels", pointer=POINTER, code="too_deep")
    inner = node.nodes if isinstance(node, And | Or) else (node.node,) if isinstance(node, Not) else ()
    for part in inner:
        _check_depth(part, level + 1)


def _close(word: str, known: "frozenset[str] | tuple[str, ...] | dict[str, Callable[[_Parser], Term]]") -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _unquoted(text: str) -> str:
    return text[1:-1].replace(text[0] * 2, text[0])


def _unquoted_name(text: str) -> str:
    """``tags.'my key'`` -> tags.my key. The names of fields are not case-sensitive, keys are."""
    base, dot, key = text.partition(".")
    base = base.lower() if base.lower() in FIELDS or base.lower() in MEMBERS else base
    return base + dot + (_unquoted(key) if key[:1] in {"'", '"'} and key.endswith(key[0]) else key)


def _number(token: Token) -> int | float:
    if len(token.text) > MAX_DIGITS:
        _fail(token.start, f"a number has at most {MAX_DIGITS} characters")
    return int(token.text) if token.text.lstrip("-").isdigit() else float(token.text)


# --- Back to text


def to_text(node: Node) -> str:
    """The text that ``parse`` reads as ``node``."""
    match node:
        case And(nodes):
            return " and ".join(map(_inner, nodes))
        case Or(nodes):
            return " or ".join(map(_inner, nodes))
        case Not(inner):
            return f"not {_inner(inner)}"
        case DescendsFrom(reference, depth):
            return f"descends_from('{reference}', depth<={depth})"
        case FitsSlot(slot):
            return f"compatible_with('{slot}')"
        case FitsContract(operator, given, wanted):
            return f"compatible_with({_spelled(operator)}, {_list(given)}, {_list(wanted)})"
        case Compare():
            return _comparison(node)


def _inner(node: Node) -> str:
    return f"({to_text(node)})" if isinstance(node, And | Or) and not is_everything(node) else to_text(node)


def _comparison(node: Compare) -> str:
    name = _name(node.field)
    if node.op is Op.HAS:
        return f"has({name})"
    if isinstance(node.value, tuple):
        return f"{name} in {_list(node.value)}"
    is_time = field_named(node.field, pointer=POINTER).kind is Kind.TIME
    bare = is_time and isinstance(node.value, str) and RELATIVE_TIME.fullmatch(node.value)
    value = str(node.value) if bare else _spelled(node.value)
    return f"{name} {'like' if node.op is Op.LIKE else SIGNS[node.op]} {value}"


def _name(field: str) -> str:
    base, dot, key = field.partition(".")
    is_bare = not dot or all(KEYED.fullmatch(part) for part in key.split("."))
    return field if is_bare else f"{base}.{_spelled(key)}"


def _list(values: "tuple[Scalar, ...]") -> str:
    return f"({', '.join(map(_spelled, values))})"


def _spelled(value: object) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value).lower() if isinstance(value, bool) else repr(value)
