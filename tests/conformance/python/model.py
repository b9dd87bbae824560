"""The service model that botocore carries: which operations there are, and what it says of a value.

Nothing here knows an operation by name. What a value breaks is worked out anew from the model, so that the
server's own reading of it has something to be compared with.
"""

import re
from dataclasses import dataclass
from functools import cache

import botocore.session

# Of lambda-core, the network connectors only: the rest of it is another service.
SERVICES = {"lambda-microvms": "/", "lambda-core": "/2026-04-04/"}

SESSION = botocore.session.Session()


@dataclass(frozen=True)
class Operation:
    """One operation of a service."""

    service: str
    name: str

    @property
    def model(self):
        return service_model(self.service).operation_model(self.name)

    @property
    def input(self):
        return self.model.input_shape

    @property
    def errors(self):
        return {shape.name: shape for shape in self.model.error_shapes}

    def invalid(self, params):
        """The error of a value that breaks the model: each of the two families has its own."""
        core = self.service == "lambda-core" or ":network-connector:" in params.get("Resource", "")
        return "InvalidParameterValueException" if core else "ValidationException"

    def __str__(self):
        return self.name


@cache
def service_model(service):
    return SESSION.get_service_model(service)


@cache
def operations():
    found = []
    for service, prefix in SERVICES.items():
        model = service_model(service)
        for name in model.operation_names:
            if model.operation_model(name).http["requestUri"].startswith(prefix):
                found.append(Operation(service, name))
    return found


def is_in_body(member):
    return "location" not in member.serialization


def wire_name(name, member):
    return member.serialization.get("name", name)


def pattern(shape):
    """The shape's regular expression, which is Java's and must match the whole."""
    text = shape.metadata.get("pattern")
    return text and _compiled(text)


@cache
def _compiled(text):
    for java, ours in {
        r"\p{L}": r"\w",
        r"\p{N}": r"\d",
        r"\p{Z}": " \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000",
    }.items():
        text = text.replace(java, ours)
    # `[a-zA-Z0-9-_]` holds a hyphen: said so, for Python would rather not guess.
    text = text.replace("0-9-_", r"0-9\-_")
    assert r"\p" not in text, f"a class of characters that is not translated yet: {text}"
    return re.compile(text)


def broken(shape, value, path=""):
    """The sentences about all that a value breaks; its JSON types are right."""
    found = []

    def breaks(where, rule):
        found.append(f"Value at '{where}' failed to satisfy constraint: Member must {rule}")

    def size(where, number, shape, what):
        low, high = shape.metadata.get("min"), shape.metadata.get("max")
        if low is not None and number < low:
            breaks(where, f"have {what} greater than or equal to {low}")
        if high is not None and number > high:
            breaks(where, f"have {what} less than or equal to {high}")

    def text(where, shape, value):
        size(where, len(value), shape, "length")
        expression = pattern(shape)
        if expression and not expression.fullmatch(value):
            breaks(where, f"satisfy regular expression pattern: {shape.metadata['pattern']}")
        if shape.enum and value not in shape.enum:
            breaks(where, f"satisfy enum value set: [{', '.join(shape.enum)}]")

    def look(where, shape, value):
        match shape.type_name:
            case "structure":
                members(where, shape, value)
            case "list":
                size(where, len(value), shape, "length")
                for number, item in enumerate(value, 1):
                    look(f"{where}.{number}.member", shape.member, item)
            case "map":
                size(where, len(value), shape, "length")
                for key, item in value.items():
                    text(where, shape.key, key)
                    look(f"{where}.{key}.member", shape.value, item)
            case "string":
                text(where, shape, value)
            case "integer" | "long":
                size(where, value, shape, "value")

    def members(where, shape, value):
        given = [name for name in shape.members if value.get(name) is not None]
        if shape.is_tagged_union and len(given) != 1:
            breaks(where, UNION_RULE)
        for name in shape.required_members:
            if name not in given:
                breaks(inside(where, name), "not be null")
        for name in given:
            look(inside(where, name), shape.members[name], value[name])

    look(path, shape, value)
    return found


# How the server words what the model calls a union and says no more about.
UNION_RULE = "have exactly one member"


def inside(where, name):
    return f"{where}.{name}" if where else name
