"""Answers, held against the shapes that the model has for them."""

import json
import re
from dataclasses import dataclass, field

from model import broken, is_in_body, wire_name

ISO_8601 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)")
# What any operation may answer without modelling it, with its status.
COMMON_ERRORS = {
    "SerializationException": 400,
    "UnknownOperationException": 404,
    "UnrecognizedClientException": 403,
    "InvalidSignatureException": 403,
    "IncompleteSignatureException": 400,
    "MissingAuthenticationTokenException": 403,
    "ExpiredTokenException": 403,
    "RequestEntityTooLargeException": 413,
    "AccessDeniedException": 403,
}


@dataclass
class Reply:
    """An answer as it came, and as botocore read it."""

    status: int
    headers: dict
    raw: bytes
    parsed: dict = field(default_factory=dict)

    @property
    def body(self):
        return json.loads(self.raw) if self.raw else {}

    @property
    def error(self):
        return self.headers.get("x-amzn-errortype", "")

    @property
    def message(self):
        body = self.body
        return body.get("message", body.get("Message")) or ""

    def __str__(self):
        return f"{self.status} {self.error} {self.raw[:1500]!r}"


def check_success(operation, reply):
    """A success, of exactly the output's shape."""
    model = operation.model
    expected = model.http.get("responseCode", 200)
    assert reply.status == expected, f"expected {expected}: {reply}"
    assert not reply.error, f"a success with an error's header: {reply}"
    check_head(reply)
    if model.output_shape is None:
        assert not reply.raw, f"the operation has no output: {reply}"
        return
    check_value(model.output_shape, reply.body)
    lost = set(reply.body) - set(reply.parsed)
    assert not lost, f"botocore did not read {lost}: {reply}"


def check_error(operation, reply, name):
    """The error of this name, with the status and the members that the model gives it."""
    assert reply.error == name, f"expected {name}: {reply}"
    check_head(reply)
    assert reply.message, f"an error without a message: {reply}"
    shape = operation.errors.get(name)
    if shape is None:
        assert COMMON_ERRORS.get(name) == reply.status, f"not among {operation}'s errors: {reply}"
        assert set(reply.body) <= {"message"}, f"unknown members: {reply}"
        return
    assert reply.status == shape.metadata["error"]["httpStatusCode"], f"{reply}"
    check_value(shape, reply.body)
    for member, inner in shape.members.items():
        if inner.serialization.get("location") == "header":
            seconds = reply.headers.get(inner.serialization["name"].lower(), "")
            assert seconds.isdigit() and int(seconds) >= 1, f"{member} in no header: {reply} {reply.headers}"


def check_head(reply):
    assert reply.headers.get("x-amzn-requestid"), f"no request id: {reply} {reply.headers}"
    if reply.raw:
        assert reply.headers.get("content-type") == "application/json", f"{reply} {reply.headers}"


def check_value(shape, value, where=""):
    """A value of this shape: its types, no member that is not the shape's, and all that input is held to."""
    check_types(shape, value, where)
    faults = broken(without_headers(shape), value, where)
    assert not faults, f"{faults}"


def without_headers(shape):
    """The shape as its body has it: required members elsewhere are not looked for."""
    assert not [n for n in getattr(shape, "required_members", []) if not is_in_body(shape.members[n])]
    return shape


def check_types(shape, value, where):
    here = where or shape.name
    match shape.type_name:
        case "structure":
            assert isinstance(value, dict), f"{here} is no object: {value!r}"
            known = {wire_name(n, m): m for n, m in shape.members.items() if is_in_body(m)}
            strange = set(value) - set(known)
            assert not strange, f"{here} has members that the model has not: {strange}"
            for name, inner in value.items():
                check_types(known[name], inner, f"{where}.{name}" if where else name)
        case "list":
            assert isinstance(value, list), f"{here} is no list: {value!r}"
            for number, item in enumerate(value, 1):
                check_types(shape.member, item, f"{here}.{number}.member")
        case "map":
            assert isinstance(value, dict), f"{here} is no object: {value!r}"
            for key, item in value.items():
                check_types(shape.value, item, f"{here}.{key}.member")
        case "string":
            assert isinstance(value, str), f"{here} is no text: {value!r}"
        case "boolean":
            assert isinstance(value, bool), f"{here} is no boolean: {value!r}"
        case "integer" | "long":
            assert isinstance(value, int) and not isinstance(value, bool), f"{here} is no number: {value!r}"
        case "timestamp":
            check_timestamp(shape, value, here)
        case other:
            raise AssertionError(f"{here} is of a type that is not looked at yet: {other}")


def check_timestamp(shape, value, here):
    if shape.serialization.get("timestampFormat") == "iso8601":
        assert isinstance(value, str) and ISO_8601.fullmatch(value), f"{here} is no ISO 8601: {value!r}"
    else:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        assert number and 1.6e9 < value < 1e10, f"{here} is not in seconds since the epoch: {value!r}"
