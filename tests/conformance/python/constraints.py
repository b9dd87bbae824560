"""Every constraint of every operation's input, violated."""

import copy
import itertools
from dataclasses import dataclass

from bed import bed
from examples import FROM_ANSWERS, REFUSED, Absent, examples
from model import broken, inside, is_in_body, pattern
from replies import check_error
from trials import where

MISSING = object()
# Characters that some pattern or other forbids; the last shows whether `$` was taken for the end of the text.
FORBIDDEN = " !*:%\u00e9\u0007\n"
FILLERS = "a0-/"
WRONG = {
    "string": [5, True, [], {}],
    "integer": ["5", 1.5, True, [], {}],
    "long": ["5", 1.5, True, [], {}],
    "boolean": ["true", 1, [], {}],
    "structure": ["x", 5, True, []],
    "list": ["x", 5, True, {}],
    "map": ["x", 5, True, []],
}


@dataclass
class Violation:
    """An input with one thing wrong: what stands at `keys` instead."""

    keys: tuple
    value: object
    in_body: bool

    def applied(self, params):
        changed = copy.deepcopy(params)
        *way, last = self.keys
        place = changed
        for key in way:
            place = place[key]
        if self.value is MISSING:
            del place[last]
        elif isinstance(self.value, Renamed):
            place[self.value.name] = place.pop(last)
        else:
            place[last] = self.value
        return changed

    def __str__(self):
        value = "nothing" if self.value is MISSING else repr(self.value)
        return f"{'.'.join(map(str, self.keys))} = {value if len(value) < 80 else value[:60] + '…'}"


@dataclass(frozen=True)
class Renamed:
    """A map's key in place of another."""

    name: str


def inputs(operation):
    """Inputs that show all there is to violate; what they name need not exist."""
    whole = [{**example, **refused(operation)} for example in examples(operation, Absent())]
    tokens = {name: "a-token" for name in operation.input.members if name in FROM_ANSWERS}
    return [{**example, **tokens} for example in whole]


def refused(operation):
    return {name: value for name, value in REFUSED.items() if name in operation.input.members}


def places(shape, value, keys=(), in_body=True):
    """Every value within, with its shape."""
    yield shape, value, keys, in_body
    match shape.type_name:
        case "structure":
            for name, member in shape.members.items():
                if name in value:
                    place = in_body and is_in_body(member)
                    yield from places(member, value[name], (*keys, name), place)
        case "list":
            for index, item in enumerate(value):
                yield from places(shape.member, item, (*keys, index), in_body)
        case "map":
            for key, item in value.items():
                yield from places(shape.value, item, (*keys, key), in_body)


def distinct_places(operation, all_params):
    """The same for several inputs, each place once."""
    seen = set()
    for params in all_params:
        for shape, _, keys, in_body in places(operation.input, params):
            if keys not in seen:
                seen.add(keys)
                yield params, shape, keys, in_body


def members(shape, path="", seen=()):
    """Where every member of a shape is."""
    if shape.name in seen:
        return
    seen = (*seen, shape.name)
    match shape.type_name:
        case "structure":
            for name, member in shape.members.items():
                yield inside(path, name)
                yield from members(member, inside(path, name), seen)
        case "list":
            yield from members(shape.member, path, seen)
        case "map":
            yield from members(shape.value, path, seen)


def shown(shape, value, path=""):
    match shape.type_name:
        case "structure":
            for name, inner in value.items():
                member = shape.members[name]
                yield inside(path, name)
                yield from shown(member, inner, inside(path, name))
        case "list":
            for item in value:
                yield from shown(shape.member, item, path)
        case "map":
            for item in value.values():
                yield from shown(shape.value, item, path)


def violations(operation, params):
    """Inputs that break the model at one place each."""
    for shape, value, keys, in_body in places(operation.input, params):
        for other in replacements(shape, value):
            if keys:
                yield Violation(keys, other, in_body)
        if shape.type_name == "structure":
            for name in shape.required_members:
                # Without a parameter of its path a request is another request.
                if shape.members[name].serialization.get("location") != "uri":
                    yield Violation((*keys, name), MISSING, in_body)
                if is_in_body(shape.members[name]):
                    yield Violation((*keys, name), None, in_body)
        if shape.type_name == "map":
            first = next(iter(value))
            yield from (Violation((*keys, first), Renamed(key), in_body) for key in texts(shape.key, first))


def replacements(shape, value):
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    match shape.type_name:
        case "string":
            yield from texts(shape, value)
        case "integer" | "long":
            if low is not None:
                yield from (low - 1, -(2**31))
            if high is not None:
                yield from (high + 1, 2**31 - 1)
        case "list":
            if low:
                yield value[: low - 1]
            if high is not None:
                yield list(itertools.islice(itertools.cycle(value), high + 1))
        case "map":
            if low:
                yield dict(list(value.items())[: low - 1])
            if high is not None:
                item = next(iter(value.values()))
                yield {f"KEY_{number}": item for number in range(high + 1)}
        case "structure" if shape.is_tagged_union:
            yield {}
            # Of one member a union cannot have two.
            if len(shape.members) > 1:
                yield {**{n: sample(m) for n, m in list(shape.members.items())[:2]}, **value}


def sample(shape):
    """Some value of a union's member."""
    match shape.type_name:
        case "integer" | "long":
            return shape.metadata.get("min", 1)
        case "string":
            return "x"
        case "structure":
            return {name: sample(shape.members[name]) for name in shape.required_members}
    raise AssertionError(f"no sample of a {shape.type_name}")


def texts(shape, value):
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if shape.enum:
        yield from ("NO_SUCH_VALUE", shape.enum[0].swapcase(), shape.enum[0] + " ", "")
    if low:
        yield ""
    if high is not None:
        yield longer(shape, value, high + 1)
    if expression := pattern(shape):
        for character in FORBIDDEN:
            other = (value + character)[-high:] if high else value + character
            if not expression.fullmatch(other):
                yield other


def longer(shape, value, length):
    """A text that is too long and, where there is one, still of the pattern."""
    expression = pattern(shape)
    tries = [value + filler * (length - len(value)) for filler in FILLERS]
    return next((text for text in tries if not expression or expression.fullmatch(text)), tries[0])


def every_member_is_in_an_example(operation):
    everything = set(members(operation.input))
    seen = {path for params in inputs(operation) for path in shown(operation.input, params)}
    assert seen == everything, f"no example shows {sorted(everything - seen)}"


def one_at_a_time(operation):
    every_member_is_in_an_example(operation)
    count = 0
    for params in distinct(operation, inputs(operation)):
        for violation in params[1]:
            faults = broken(operation.input, changed := violation.applied(params[0]))
            assert faults, f"the walker breaks nothing: {violation}"
            refuse(operation, changed, faults, violation)
            count += 1
    assert count, "nothing is violated"


def distinct(operation, all_params):
    """Inputs with their violations, each place once."""
    seen = set()
    for params in all_params:
        fresh_ones = []
        for violation in violations(operation, params):
            if (mark := str(violation)) not in seen:
                seen.add(mark)
                fresh_ones.append(violation)
        yield params, fresh_ones


def refuse(operation, params, faults, what):
    reply = bed("default").call(operation, params)
    try:
        check_error(operation, reply, operation.invalid(params))
        check_sentences(reply.message, faults)
    except AssertionError as error:
        raise AssertionError(f"{what}: {error}") from None


def check_sentences(message, faults):
    """All that is broken is said, in whatever order."""
    count = len(faults)
    head = f"{count} validation error{'s' if count > 1 else ''} detected: "
    assert message.startswith(head), f"expected {head}{'; '.join(faults)}\n     got {message}"
    # Patterns hold semicolons too, for all that is known of them: take the sentences away one by one.
    rest = message.removeprefix(head)
    assert len(rest) == len("; ".join(faults)), f"expected {'; '.join(faults)}\n     got {rest}"
    for fault in faults:
        assert fault in rest, f"expected {fault}\n     in {rest}"


def can_break_twice(operation):
    return any(len(apart(violations(operation, params))) > 1 for params in inputs(operation))


@where(can_break_twice)
def several_at_once(operation):
    for params in inputs(operation):
        chosen = apart(violations(operation, params))
        for first, second in itertools.pairwise(chosen):
            together(operation, params, [first, second])
        if len(chosen) > 2:
            together(operation, params, chosen)


def apart(found):
    """One violation for each place that is within no other's."""
    chosen = []
    for violation in found:
        if violation.value is MISSING or violation.value is None or isinstance(violation.value, Renamed):
            continue
        if not any(other.keys[: len(violation.keys)] == violation.keys
                   or violation.keys[: len(other.keys)] == other.keys for other in chosen):
            chosen.append(violation)
    return chosen


def together(operation, params, several):
    for violation in several:
        params = violation.applied(params)
    faults = broken(operation.input, params)
    assert len(faults) >= len(several)
    refuse(operation, params, faults, " and ".join(map(str, several)))
