"""Every operation called as it should be, and its answers held against the model."""

from bed import bed
from examples import There, examples
from replies import check_success
from wrong_types import send


def every_example(operation):
    for params in examples(operation, There()):
        reply = bed("default").call(operation, params)
        check_success(operation, reply)


def unknown_members_are_ignored(operation):
    """A client of a later model sends what this one has not."""
    params = with_unknown(operation.input, examples(operation, There())[-1])
    check_success(operation, send(operation, params))


def with_unknown(shape, value):
    """The value with a member that is nobody's in each structure within."""
    match shape.type_name:
        case "structure":
            changed = {name: with_unknown(shape.members[name], inner) for name, inner in value.items()}
            # A union with a member that is not known has two, or none.
            return changed if shape.is_tagged_union else {**changed, "notInTheModel": {"a": [1, None]}}
        case "list":
            return [with_unknown(shape.member, item) for item in value]
        case "map":
            return {key: with_unknown(shape.value, item) for key, item in value.items()}
    return value
