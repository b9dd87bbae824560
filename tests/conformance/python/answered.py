"""Whether the server ever answers each member that the model gives its answers."""

from functools import cached_property

from bed import BASE_IMAGE, bed, until
from constraints import members, shown
from examples import EXAMPLES, FAILS, VPC, There, active, examples, reach, settled, updated
from listings import LENGTH
from trials import where

NOWHERE = {"VpcEgressConfiguration": {**VPC["VpcEgressConfiguration"], "SubnetIds": ["subnet-0"]}}
# What is never answered, and why: a member, or a member of one operation's answers.
NEVER = {
    "kmsKeyIdentifier": "no request may name a key",
    "CreateMicrovmImage.latestActiveImageVersion": "a new image has none",
    "CreateMicrovmImage.latestFailedImageVersion": "a new image has none",
    "ListManagedMicrovmImages.items.updatedAt": "the base image comes with the installation",
    "ListManagedMicrovmImages.nextToken": "there is one",
    "ListManagedMicrovmImageVersions.items.updatedAt": "the base image comes with the installation",
    "ListManagedMicrovmImageVersions.nextToken": "there is one",
    "ListMicrovmImageBuilds.nextToken": "a version has one build",
}
# Of versions: the reason stands on the build alone (SPEC 2.7), and tags on the image (SPEC 2.8).
OF_VERSIONS = {"stateReason", "tags"}


@where(lambda operation: operation.model.output_shape and operation.model.output_shape.members)
def every_member(operation):
    """Of this operation's answers to all examples, and to questions about things in other states."""
    shape = operation.model.output_shape
    seen = set()
    for params in questions(operation):
        reply = bed("default").call(operation, params)
        assert reply.status < 300, f"{params}: {reply}"
        seen |= set(shown(shape, reply.body))
    unseen = {path for path in set(members(shape)) - seen if not is_never(operation, path)}
    assert not unseen, f"never answered: {sorted(unseen)}"


def is_never(operation, path):
    last = path.split(".")[-1]
    of_version = "ImageVersion" in operation.name and last in OF_VERSIONS
    return of_version or last in NEVER or f"{operation}.{path}" in NEVER


# Parameters of the same questions about a version that failed, and about a MicroVM that has ended.
OTHERS = {
    "imageIdentifier": lambda things: things.failed,
    "imageVersion": lambda _: "2.0",
    "microvmIdentifier": lambda things: things.ended,
    "buildId": lambda things: things.failed_build,
}


def of_connectors(operation, things):
    match operation.name:
        case "GetNetworkConnector" | "ListNetworkConnectorVersions":
            yield {"Identifier": things.failed_connector}
            yield {"Identifier": things.changed_connector}
    match operation.name:
        case "UpdateNetworkConnector":
            # Asked for again, it is shown as it has become.
            yield things.failed_change
        case "GetNetworkConnector":
            yield {"Identifier": things.connector_arn + ":1"}
        case "ListNetworkConnectorVersions":
            yield {"Identifier": things.changed_connector, "MaxItems": 1}


SHOW_A_VERSION = {"GetMicrovmImageVersion", "ListMicrovmImageVersions", "UpdateMicrovmImageVersion"}


def questions(operation):
    things = Described()
    every = examples(operation, things)
    yield from every
    if operation.name == "RunMicrovm":
        # Asked for again, it is shown as it has become.
        assert things.ended
        yield things.ended_request
    yield from of_connectors(operation, things)
    for params in every if operation.name.startswith(("Get", "List")) else []:
        if params.get("imageIdentifier") != BASE_IMAGE:
            yield {name: OTHERS[name](things) if name in OTHERS else value for name, value in params.items()}
    for length in LENGTH.values():
        if length in operation.input.members:
            things.made_microvm()
            of = {"imageIdentifier": things.failed} if operation.name == "ListMicrovmImageVersions" else {}
            yield {**every[0], **of, length: 1}
    if operation.name == "UpdateMicrovmImage":
        yield {**every[0], "imageIdentifier": things.failed}
    if operation.name in SHOW_A_VERSION:
        yield {**every[0], "imageIdentifier": things.quiet}


class Described(There):
    """Of whose images and MicroVMs everything is said that can be."""

    def made(self, number):
        params = EXAMPLES["CreateMicrovmImage"](self)[number]
        return settled(self.bed, self.bed.microvms("CreateMicrovmImage", **params)["imageArn"])

    @cached_property
    def image(self):
        return self.made(1)

    @property
    def doomed_image(self):
        return self.made(1)

    @cached_property
    def quiet(self):
        return self.made(2)

    @cached_property
    def failed(self):
        """An image of which one version runs and one failed."""
        return updated(self.bed, self.made(1), FAILS)

    @cached_property
    def failed_build(self):
        builds = self.bed.microvms("ListMicrovmImageBuilds", imageIdentifier=self.failed, imageVersion="2.0")
        return builds["items"][0]["buildId"]

    @cached_property
    def microvm(self):
        id = self.bed.microvms("RunMicrovm", **EXAMPLES["RunMicrovm"](self)[1])["microvmId"]
        return reach(self.bed, id, "RUNNING")

    @cached_property
    def ended_request(self):
        """The request that ran a MicroVM which has ended since."""
        return EXAMPLES["RunMicrovm"](self)[1]

    @cached_property
    def ended(self):
        id = self.bed.microvms("RunMicrovm", **self.ended_request)["microvmId"]
        self.bed.microvms("TerminateMicrovm", microvmIdentifier=id)
        return reach(self.bed, id, "TERMINATED")

    def made_connector(self):
        params = EXAMPLES["CreateNetworkConnector"](self)[1]
        return active(self.bed, self.bed.core("CreateNetworkConnector", **params)["Id"])

    @property
    def failed_connector(self):
        id = self.bed.core("CreateNetworkConnector", Name=self.name, Configuration=NOWHERE)["Id"]
        until(f"{id} to fail", lambda: self.connector_now(id)["State"] == "FAILED")
        return id

    @cached_property
    def changed_connector(self):
        """One whose last change failed."""
        return self.failed_change["Identifier"]

    @cached_property
    def failed_change(self):
        id = self.made_connector()
        change = {"Identifier": id, "Configuration": NOWHERE, "ClientToken": self.name}
        self.bed.core("UpdateNetworkConnector", **change)
        until(f"{id} to refuse", lambda: self.connector_now(id)["LastUpdateStatus"] == "Failed")
        return change

    def connector_now(self, id):
        return self.bed.core("GetNetworkConnector", Identifier=id)
