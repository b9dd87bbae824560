"""Every error that the model gives an operation, provoked."""

from bed import bed
from constraints import inputs, refused, violations
from examples import FAILS, NEVER_ENDS, RUNS, VPC, Absent, There, examples, image, reach, settled, updated
from model import broken
from replies import check_error

# A bucket of a throttle holds at most this many calls on the bed that has them.
THROTTLED_AFTER = 3


def provoked(operation, error):
    way = WAYS.get((operation.name, error)) or GENERAL.get(error)
    assert way, f"{operation} models {error}: say in errors.py how to provoke it"
    check_error(operation, way(operation), error)


def denied(operation):
    """Asked by a user to whom no policy allows anything."""
    return bed("default").call(operation, examples(operation, There())[0], who="nobody")


def throttled(operation):
    return throttled_with(operation, examples(operation, Absent("throttled"))[0])


def throttled_with(operation, params):
    for _ in range(THROTTLED_AFTER):
        reply = bed("throttled").call(operation, params)
        if reply.status == 429:
            return reply
    raise AssertionError(f"not throttled after {THROTTLED_AFTER} calls: {reply}")


def failed(operation):
    """Asked of a server whose database has lost its tables."""
    return bed("broken").call(operation, examples(operation, Absent("broken"))[0])


def invalid(operation):
    for params in inputs(operation):
        for violation in violations(operation, params):
            return bed("default").call(operation, violation.applied(params))
    # No member has a rule: any page has one.
    raise AssertionError(f"nothing of {operation}'s input can be invalid")


def not_found(operation):
    return bed("default").call(operation, examples(operation, Absent())[0])


GENERAL = {
    "AccessDeniedException": denied,
    "ThrottlingException": throttled,
    "TooManyRequestsException": throttled,
    "InternalServerException": failed,
    "ServiceException": failed,
    "ValidationException": invalid,
    "InvalidParameterValueException": invalid,
    "ResourceNotFoundException": not_found,
}


def call(operation, at="default", **params):
    return bed(at).call(operation, params)


def first_with(operation, things, **members):
    return things.bed.call(operation, {**examples(operation, things)[0], **members})


def same_token(operation):
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
    "UpdateNetworkConnector": {"OperatorRole": "arn:aws:iam::123456789012:role/another"},
}


def busy_image(operation):
    """An image whose build has not ended."""
    things = There()
    things.image = things.doomed_image = things.made_image(uri=NEVER_ENDS)
    return None


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


def of_busy_image(operation):
    things = Busy()
    return things.bed.call(operation, examples(operation, things)[0])


def of_ended_microvm(operation):
    things = Ended()
    return things.bed.call(operation, {**examples(operation, Absent())[0], "microvmIdentifier": things.microvm})


def last_version(operation):
    return call(operation, imageIdentifier=There().doomed_image, imageVersion="1.0")


def images_used_up(operation):
    things = There("tiny")
    for _ in range(3):
        reply = things.bed.call(operation, {**image(things), "name": things.name})
        if reply.status != 201:
            return reply
        settled(things.bed, reply.body["imageArn"])
    raise AssertionError("three images where two are allowed")


def versions_used_up(operation):
    things = There("versions")
    arn = things.made_image()
    for _ in range(3):
        reply = things.bed.call(operation, {**image(things), "imageIdentifier": arn})
        if reply.status != 200:
            return reply
        settled(things.bed, arn)
    raise AssertionError("four versions where two are allowed")


def microvms_used_up(operation):
    things = There("microvms")
    for _ in range(5):
        reply = things.bed.call(operation, {"imageIdentifier": things.image})
        if reply.status != 200:
            return reply
    raise AssertionError("five MicroVMs where fewer are allowed")


WAYS = {
    ("CreateMicrovmImage", "ConflictException"): same_token,
    ("UpdateMicrovmImage", "ConflictException"): of_busy_image,
    ("DeleteMicrovmImage", "ConflictException"): of_busy_image,
    ("UpdateMicrovmImageVersion", "ConflictException"): of_busy_image,
    ("DeleteMicrovmImageVersion", "ConflictException"): last_version,
    ("RunMicrovm", "ConflictException"): same_token,
    ("SuspendMicrovm", "ConflictException"): of_ended_microvm,
    ("ResumeMicrovm", "ConflictException"): of_ended_microvm,
    ("CreateMicrovmAuthToken", "ConflictException"): of_ended_microvm,
    ("CreateMicrovmShellAuthToken", "ConflictException"): of_ended_microvm,
    ("CreateNetworkConnector", "ResourceConflictException"): same_token,
    ("UpdateNetworkConnector", "ResourceConflictException"): same_token,
    ("CreateMicrovmImage", "ServiceQuotaExceededException"): images_used_up,
    ("UpdateMicrovmImage", "ServiceQuotaExceededException"): versions_used_up,
    ("RunMicrovm", "ServiceQuotaExceededException"): microvms_used_up,
}
