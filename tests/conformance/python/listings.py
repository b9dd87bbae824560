"""Every listing, followed from page to page."""

from bed import bed, fresh
from examples import FROM_ANSWERS, There, active, examples, updated
from model import operations
from replies import check_error, check_success


def paged():
    """The operations that answer in pages, with the names of their members for that."""
    for operation in operations():
        token = next((name for name in operation.input.members if name in FROM_ANSWERS), None)
        if token:
            yield operation, token


NEXT = {"nextToken": "nextToken", "Marker": "NextMarker"}
LENGTH = {"nextToken": "maxResults", "Marker": "MaxItems"}


def items_of(operation, body):
    lists = [name for name, shape in operation.model.output_shape.members.items() if shape.type_name == "list"]
    (name,) = lists
    return body[name]


def crowd():
    """Two of everything that can be listed, for a listing to have more than one page."""
    things = There()
    updated(things.bed, things.image)
    things.made_image()
    things.made_microvm()
    things.made_microvm()
    if any(operation.service == "lambda-core" for operation in operations()):
        things.made_connector()
        things.bed.core("UpdateNetworkConnector", Identifier=things.connector, OperatorRole=things.bed.role())
        active(things.bed, things.connector)
    return things


def leads_through_everything(operation, token):
    """Pages of one item have together what one page has; those of other tests may come and go meanwhile."""
    params = examples(operation, crowd())[0]
    whole = pages(operation, params, token, 50)
    single = pages(operation, params, token, 1)
    assert all(len(page) <= 1 for page in single), f"pages of more than one item: {single}"
    assert len(flat(whole)) <= len(flat(single)), f"lost on the way: {whole} {single}"


def pages(operation, params, token, length):
    found, params = [], {**params, LENGTH[token]: length}
    while True:
        reply = bed("default").call(operation, params)
        check_success(operation, reply)
        found.append(items_of(operation, reply.body))
        following = reply.body.get(NEXT[token])
        if following is None:
            return found
        assert len(found) < 1000, "the listing does not end"
        params[token] = following


def flat(found):
    return [item for page in found for item in page]


def tokens_cannot_be_made_up(operation, token):
    params = examples(operation, crowd())[0]
    reply = bed("default").call(operation, {**params, LENGTH[token]: 1})
    true = reply.body.get(NEXT[token])
    made_up = ["x", "", "AAAA", "x" * 5000, "\u00e9"]
    if true:
        changed = ("A" if true[0] != "A" else "B") + true[1:]
        made_up += [changed, true[:-1], true + "A", true.swapcase()]
    for text in made_up:
        reply = bed("default").call(operation, {**params, token: text})
        check_error(operation, reply, operation.invalid(params))
    if true and "nameFilter" in operation.input.members:
        reply = bed("default").call(operation, {**params, token: true, "nameFilter": fresh("other")})
        check_error(operation, reply, operation.invalid(params))
