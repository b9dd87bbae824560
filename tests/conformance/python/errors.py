"""Every error that the model gives an operation, provoked."""

import itertools

from bed import bed
from constraints import refused, violations
from examples import (
    FROM_ANSWERS, NEVER_ENDS, VPC, Absent, There, active, examples, image, reach, settled,
)
from replies import check_error, check_success

# Tags of a connector are answered for as Lambda always did, those of an image as lambda-microvms does.
LAMBDAS_OWN = {
    "InvalidParameterValueException", "ResourceConflictException", "ServiceException", "TooManyRequestsException",
}


def provoked(operation, error):
    if cannot := CANNOT.get((operation.name, error)):
        check_success(operation, cannot(operation))
        return
    ways = WAYS.get((operation.name, error)) or GENERAL.get(error)
    assert ways, f"{operation} models {error}: say in errors.py how to provoke it"
    for way in ways:
        check_error(operation, way(operation, error), error)


def example(operation, error, things):
    every = examples(operation, things)
    return every[-1 if "Resource" in operation.input.members and error in LAMBDAS_OWN else 0]


def denied(operation, error):
    """Asked by a user to whom no policy allows anything."""
    return bed("default").call(operation, example(operation, error, There()), who="nobody")


def throttled(operation, error):
    """Asked twice where once is allowed."""
    params = example(operation, error, Absent("throttled"))
    return [bed("throttled").call(operation, params) for _ in range(2)][-1]


def failed(operation, error):
    """Asked of a server whose database has lost its tables."""
    return bed("broken").call(operation, example(operation, error, Absent("broken")))


def invalid(operation, error):
    """The first thing wrong that there can be, where it does not hide whose tags are meant."""
    params = {**example(operation, error, Absent()), **refused(operation)}
    tokens = [{**params, name: "made up"} for name in operation.input.members if name in FROM_ANSWERS]
    broken = [violation.applied(params) for violation in violations(operation, params)]
    return bed("default").call(operation, next(p for p in broken + tokens if operation.invalid(p) == error))


def not_found(operation, error):
    return bed("default").call(operation, examples(operation, Absent())[-1])


GENERAL = {
    "AccessDeniedException": [denied],
    "ThrottlingException": [throttled],
    "TooManyRequestsException": [throttled],
    "InternalServerException": [failed],
    "ServiceException": [failed],
    "ValidationException": [invalid],
    "InvalidParameterValueException": [invalid],
    "ResourceNotFoundException": [not_found],
}


def call(operation, at="default", /, **params):
    return bed(at).call(operation, params)


def same_token(operation, _):
    """The same token for another request is a conflict."""
    things = There()
    token = "ClientToken" if operation.service == "lambda-core" else "clientToken"
    params = {**examples(operation, things)[0], token: things.name}
    first = things.bed.call(operation, params)
    assert first.status < 300, f"{first}"
    other = {**params, **OTHERWISE[operation.name]}
    return things.bed.call(operation, other)


OTHERWISE = {
    "CreateMicrovmImage": {"description": "another"},
    "UpdateMicrovmImage": {"description": "another"},
    "RunMicrovm": {"maximumDurationInSeconds": 60},
    "CreateNetworkConnector": {"Tags": {"other": "one"}},
    "UpdateNetworkConnector": {"OperatorRole": bed("default").role("MicroVMExecutionRole")},
}


class Busy(There):
    """Its image is being built, and always will be."""

    @property
    def doomed_image(self):
        return self.made_image(uri=NEVER_ENDS)

    image = doomed_image


class Ended(There):
    """Its MicroVM has ended."""

    @property
    def microvm(self):
        id = self.made_microvm()
        self.bed.microvms("TerminateMicrovm", microvmIdentifier=id)
        return reach(self.bed, id, "TERMINATED")


def of_busy_image(operation, _):
    things = Busy()
    return things.bed.call(operation, examples(operation, things)[0])


def of_ended_microvm(operation, _):
    things = Ended()
    return things.bed.call(operation, {**examples(operation, Absent())[0], "microvmIdentifier": things.microvm})


def of_image_in_use(operation, _):
    things = There()
    things.made_microvm()
    return call(operation, imageIdentifier=things.image)


def last_version(operation, _):
    return call(operation, imageIdentifier=There().doomed_image, imageVersion="1.0")


def images_used_up(operation, _):
    things = There("few images")
    for _ in range(3):
        reply = things.bed.call(operation, {**image(things), "name": things.name})
        if reply.status != 201:
            return reply
        settled(things.bed, reply.body["imageArn"])
    raise AssertionError("three images where two are allowed")


def versions_used_up(operation, _):
    things = There("few versions")
    arn = things.made_image()
    for _ in range(3):
        reply = things.bed.call(operation, {**image(things), "imageIdentifier": arn})
        if reply.status != 200:
            return reply
        settled(things.bed, arn)
    raise AssertionError("four versions where two are allowed")


def memory_used_up(operation, _):
    things = There("little memory")
    for _ in range(5):
        reply = things.bed.call(operation, {"imageIdentifier": things.image})
        if reply.status != 200:
            return reply
    raise AssertionError("10 GiB in MicroVMs where 4 are allowed")


def host_is_full(operation, _):
    things = There("full")
    return things.bed.call(operation, {"imageIdentifier": things.image})


def builds_used_up(operation, _):
    things = There("few builds")
    for _ in range(3):
        reply = things.bed.call(operation, {**image(things, NEVER_ENDS), "name": things.name})
    return reply


def of_absent_connector(operation, _):
    absent = Absent()
    return absent.bed.call(
        operation, {**image(absent), "name": absent.name, "egressNetworkConnectors": [absent.connector_arn]}
    )


def of_leaving_image(operation, _):
    """Tagged or untagged while it is being deleted, which it is for ever."""
    things = There()
    arn = things.made_image(prefix="lingers")
    things.bed.microvms("DeleteMicrovmImage", imageIdentifier=arn)
    return things.bed.call(operation, {**examples(operation, Absent())[0], "Resource": arn})


def of_connector_in_use(operation, _):
    things = There()
    things.made_microvm(egressNetworkConnectors=[things.connector_arn])
    return call(operation, Identifier=things.connector)


def connectors_used_up(operation, _):
    things = There("few connectors")
    for _ in range(3):
        reply = things.bed.call(operation, {"Name": things.name, "Configuration": VPC})
        if reply.status != 202:
            return reply
    raise AssertionError("three connectors where two are allowed")


def connector_versions_used_up(operation, _):
    """A hundred of one connector, whatever the quotas."""
    things = There()
    roles = itertools.cycle([things.bed.role(), things.bed.role("MicroVMExecutionRole")])
    for role in itertools.islice(roles, 101):
        reply = call(operation, Identifier=things.connector, OperatorRole=role)
        if reply.status != 202:
            return reply
        active(things.bed, things.connector)
    raise AssertionError("101 versions of a connector")


# What the model has and nothing here can bring about, shown by what comes instead.
CANNOT = {
    # Answered from the configuration alone.
    ("ListManagedMicrovmImages", "InternalServerException"):
        lambda operation: call(operation, "broken"),
    ("ListManagedMicrovmImageVersions", "InternalServerException"):
        lambda operation: call(operation, "broken", imageIdentifier=There.base),
    # To end what has ended is success (SPEC 1.4), and whatever else is ended.
    ("TerminateMicrovm", "ConflictException"):
        lambda operation: call(operation, microvmIdentifier=Ended().microvm),
}
WAYS = {
    ("CreateMicrovmImage", "ConflictException"): [same_token],
    ("UpdateMicrovmImage", "ConflictException"): [of_busy_image, same_token],
    ("DeleteMicrovmImage", "ConflictException"): [of_busy_image, of_image_in_use],
    ("UpdateMicrovmImageVersion", "ConflictException"): [of_busy_image],
    ("DeleteMicrovmImageVersion", "ConflictException"): [last_version],
    ("RunMicrovm", "ConflictException"): [same_token],
    ("SuspendMicrovm", "ConflictException"): [of_ended_microvm],
    ("ResumeMicrovm", "ConflictException"): [of_ended_microvm],
    ("CreateMicrovmAuthToken", "ConflictException"): [of_ended_microvm],
    ("CreateMicrovmShellAuthToken", "ConflictException"): [of_ended_microvm],
    ("CreateMicrovmImage", "ResourceNotFoundException"): [of_absent_connector],
    ("TagResource", "ResourceConflictException"): [of_leaving_image],
    ("UntagResource", "ResourceConflictException"): [of_leaving_image],
    ("DeleteNetworkConnector", "ResourceConflictException"): [of_connector_in_use],
    ("CreateNetworkConnector", "NetworkConnectorLimitExceededException"): [connectors_used_up],
    ("UpdateNetworkConnector", "NetworkConnectorLimitExceededException"): [connector_versions_used_up],
    ("CreateNetworkConnector", "ResourceConflictException"): [same_token],
    ("UpdateNetworkConnector", "ResourceConflictException"): [same_token],
    ("CreateMicrovmImage", "ServiceQuotaExceededException"): [images_used_up, builds_used_up],
    ("UpdateMicrovmImage", "ServiceQuotaExceededException"): [versions_used_up],
    ("RunMicrovm", "ServiceQuotaExceededException"): [memory_used_up],
    ("RunMicrovm", "InsufficientCapacityException"): [host_is_full],
}
