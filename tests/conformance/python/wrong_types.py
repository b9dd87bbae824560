"""Values of other JSON types than the model's, at every place of every body."""

import json

from bed import bed
from constraints import WRONG, Violation, distinct_places, inputs
from model import is_in_body
from replies import check_error
from trials import where

# A number of the query that is none.
NO_NUMBERS = ["x", "1.5", "1 ", "99999999999999999999"]


@where(lambda operation: has_body(operation) or has_numbers(operation))
def every_wrong_type(operation):
    count = 0
    for params, shape, keys, in_body in distinct_places(operation, inputs(operation)):
        if not keys:
            continue
        for value in WRONG[shape.type_name] if in_body else NO_NUMBERS if shape.type_name == "integer" else []:
            violation = Violation(keys, value, in_body)
            refuse(operation, violation.applied(params), violation)
            count += 1
    for value in [[], "x", 5, True] if has_body(operation) else []:
        refuse(operation, inputs(operation)[0], f"the body is {value!r}", json.dumps(value).encode())
        count += 1
    assert count, "nothing has a wrong type"


@where(lambda operation: has_body(operation) and any(
    member.type_name in ("list", "map") for member in operation.input.members.values()
))
def nulls_within(operation):
    """Null is no item of a list, and as good as nothing in a map."""
    for params, shape, keys, in_body in distinct_places(operation, inputs(operation)):
        if not in_body or not keys:
            continue
        if shape.type_name == "list":
            violation = Violation(keys, [None], in_body)
            refuse(operation, violation.applied(params), violation)
        if shape.type_name == "map":
            violation = Violation(keys, {"KEY": None}, in_body)
            reply = send(operation, violation.applied(params))
            assert reply.status < 500 and reply.error != "SerializationException", f"{violation}: {reply}"


def refuse(operation, params, what, body=None):
    reply = send(operation, params, body)
    try:
        check_error(operation, reply, "SerializationException")
    except AssertionError as error:
        raise AssertionError(f"{what}: {error}") from None


def send(operation, params, body=None):
    """The parameters as they are: botocore would stumble over types itself."""
    elsewhere = {name: value for name, value in params.items() if not in_body(operation, name)}
    if body is None and has_body(operation):
        body = json.dumps({n: v for n, v in params.items() if in_body(operation, n)}).encode()
    return bed("default").call(operation, elsewhere, body=body)


def in_body(operation, name):
    """Whether a member is the body's, as one is that the model does not know."""
    member = operation.input.members.get(name)
    return member is None or is_in_body(member)


def has_numbers(operation):
    return any(member.type_name == "integer" for member in operation.input.members.values())


def has_body(operation):
    return any(is_in_body(member) for member in operation.input.members.values())
