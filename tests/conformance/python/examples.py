"""Parameters that every operation takes: the one table that a new operation must be entered in.

The first of an operation's examples is its least; together they show every member of its input, those of its
unions each in one of them.
"""

import uuid
from functools import cached_property

from bed import BASE_IMAGE, bed, fresh, until

# What the service has and this server refuses, after the model's rules: shown apart from the examples.
REFUSED = {"kmsKeyIdentifier": "alias/a-key"}

RUNS = "s3://artifacts/app.zip"
NEVER_ENDS = "s3://artifacts/never-ends.zip"
FAILS = "s3://artifacts/fails.zip"


class Absent:
    """Names of things that are not there."""

    def __init__(self, at="default"):
        self.bed = bed(at)

    @cached_property
    def image(self):
        return self.bed.image_arn(fresh("absent"))

    @property
    def name(self):
        return fresh("made")

    @cached_property
    def microvm(self):
        return f"microvm-{uuid.uuid4()}"

    @cached_property
    def build(self):
        return str(uuid.uuid4())

    @cached_property
    def connector(self):
        return f"nc-{uuid.uuid4()}"

    @property
    def connector_arn(self):
        return self.bed.connector_arn(self.connector)

    @cached_property
    def base(self):
        return f"{BASE_IMAGE}-absent"

    @property
    def doomed_image(self):
        return self.image

    @property
    def doomed_connector(self):
        return self.connector


class There(Absent):
    """Things that are there, made when they are asked for."""

    base = BASE_IMAGE

    def made_image(self, uri=RUNS, prefix="there", **members):
        made = self.bed.microvms("CreateMicrovmImage", **{**image(self, uri), **members, "name": fresh(prefix)})
        arn = made["imageArn"]
        if uri != NEVER_ENDS:
            settled(self.bed, arn)
        return arn

    def made_microvm(self, **members):
        made = self.bed.microvms("RunMicrovm", imageIdentifier=self.image, **members)
        return reach(self.bed, made["microvmId"], "RUNNING")

    def made_connector(self):
        made = self.bed.core("CreateNetworkConnector", Name=fresh("there"), Configuration=VPC)
        return active(self.bed, made["Id"])

    @cached_property
    def image(self):
        return self.made_image(hooks=HOOKS)

    @cached_property
    def microvm(self):
        ingress = [f"arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector:{name}"
                   for name in ("HTTP_INGRESS", "SHELL_INGRESS")]
        return self.made_microvm(ingressNetworkConnectors=ingress)

    @cached_property
    def build(self):
        builds = self.bed.microvms("ListMicrovmImageBuilds", imageIdentifier=self.image, imageVersion="1.0")
        return builds["items"][0]["buildId"]

    @cached_property
    def connector(self):
        return self.made_connector()

    @property
    def doomed_image(self):
        return self.made_image()

    @property
    def connector_arn(self):
        return self.bed.core("GetNetworkConnector", Identifier=self.connector)["Arn"]

    @property
    def doomed_connector(self):
        return self.made_connector()


def settled(at, arn):
    def look():
        state = at.microvms("GetMicrovmImage", imageIdentifier=arn)["state"]
        return not state.endswith("ING")

    until(f"{arn} to settle", look)
    return arn


def updated(at, arn, uri=RUNS):
    """The image with one more version."""
    things = There(at.name)
    at.microvms("UpdateMicrovmImage", imageIdentifier=arn, **image(things, uri))
    return settled(at, arn) if uri != NEVER_ENDS else arn


def reach(at, id, state):
    until(f"{id} to be {state}", lambda: at.microvms("GetMicrovm", microvmIdentifier=id)["state"] == state)
    return id


def active(at, id):
    until(f"{id} to be active", lambda: at.core("GetNetworkConnector", Identifier=id)["State"] == "ACTIVE")
    return id


def image(things, uri=RUNS):
    """The least that an image's version is made of."""
    return {"baseImageArn": BASE_IMAGE, "buildRoleArn": things.bed.role(), "codeArtifact": {"uri": uri}}


HOOKS = {
    "port": 9000,
    "microvmHooks": {
        "run": "ENABLED", "runTimeoutInSeconds": 1,
        "resume": "ENABLED", "resumeTimeoutInSeconds": 60,
        "suspend": "ENABLED", "suspendTimeoutInSeconds": 30,
        "terminate": "ENABLED", "terminateTimeoutInSeconds": 2,
    },
    "microvmImageHooks": {
        "ready": "ENABLED", "readyTimeoutInSeconds": 3600,
        "validate": "ENABLED", "validateTimeoutInSeconds": 1,
    },
}
# A timeout of a hook that is not called is taken, and not shown.
DISABLED_HOOKS = {
    "microvmHooks": {"run": "DISABLED", "runTimeoutInSeconds": 1},
    "microvmImageHooks": {"ready": "DISABLED"},
}
MANAGED = "arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector:"
TO_CLOUD_WATCH = {"cloudWatch": {"logGroup": "/a/group", "logStream": "a stream"}}
VPC = {
    "VpcEgressConfiguration": {
        "SubnetIds": ["subnet-0a1b2c3d"],
        "SecurityGroupIds": ["sg-0a1b2c3d"],
        "NetworkProtocol": "IPv4",
        "AssociatedComputeResourceTypes": ["MicroVm"],
        "ElasticIpConfiguration": {"Type": "None"},
    }
}


def full_image(things):
    return {
        **image(things),
        "baseImageVersion": "1",
        "description": "Everything that can be said of an image",
        "logging": TO_CLOUD_WATCH,
        "egressNetworkConnectors": [MANAGED + "INTERNET_EGRESS"],
        "cpuConfigurations": [{"architecture": "X86_64"}],
        "resources": [{"minimumMemoryInMiB": 512}],
        "additionalOsCapabilities": ["ALL"],
        "hooks": HOOKS,
        "environmentVariables": {"GREETING": "hello", "EMPTY": ""},
        "clientToken": str(uuid.uuid4()),
    }


def create_image(t):
    return [
        {**image(t), "name": t.name},
        {**full_image(t), "name": t.name, "tags": {"team": "a team", "nothing": ""}},
        {**image(t), "name": t.name, "logging": {"disabled": {}}, "hooks": DISABLED_HOOKS},
    ]


def update_image(t):
    return [
        {**image(t), "imageIdentifier": t.doomed_image},
        {**full_image(t), "imageIdentifier": t.doomed_image},
        {**image(t), "imageIdentifier": t.doomed_image, "logging": {"disabled": {}}},
    ]


def run(t):
    least = {"imageIdentifier": t.image}
    return [
        least,
        {
            **least,
            "imageVersion": "1.0",
            "ingressNetworkConnectors": [MANAGED + "HTTP_INGRESS", MANAGED + "SHELL_INGRESS"],
            "egressNetworkConnectors": [MANAGED + "INTERNET_EGRESS"],
            "executionRoleArn": t.bed.role("MicroVMExecutionRole"),
            "idlePolicy": {
                "maxIdleDurationSeconds": 60, "suspendedDurationSeconds": 0, "autoResumeEnabled": False,
            },
            "logging": TO_CLOUD_WATCH,
            "runHookPayload": "x" * 4096,
            "maximumDurationInSeconds": 28800,
            "clientToken": str(uuid.uuid4()),
        },
        {**least, "logging": {"disabled": {}}},
    ]


PAGE = {"maxResults": 50}
PORTS = [{"port": 8080}, {"range": {"startPort": 1, "endPort": 65535}}, {"allPorts": {}}]

EXAMPLES = {
    "CreateMicrovmImage": create_image,
    "UpdateMicrovmImage": update_image,
    "GetMicrovmImage": lambda t: [{"imageIdentifier": t.image}],
    "ListMicrovmImages": lambda t: [{}, {**PAGE, "nameFilter": "there"}],
    "DeleteMicrovmImage": lambda t: [{"imageIdentifier": t.doomed_image}],
    "ListMicrovmImageVersions": lambda t: [{"imageIdentifier": t.image}, {"imageIdentifier": t.image, **PAGE}],
    "GetMicrovmImageVersion": lambda t: [{"imageIdentifier": t.image, "imageVersion": "1.0"}],
    "UpdateMicrovmImageVersion": lambda t: [
        {"imageIdentifier": (arn := t.doomed_image), "imageVersion": "1.0", "status": "INACTIVE"},
        {"imageIdentifier": arn, "imageVersion": "1.0", "status": "ACTIVE"},
    ],
    "DeleteMicrovmImageVersion": lambda t: [{"imageIdentifier": two_versions(t), "imageVersion": "1.0"}],
    "ListMicrovmImageBuilds": lambda t: [
        {"imageIdentifier": t.image, "imageVersion": "1.0"},
        {
            "imageIdentifier": t.image, "imageVersion": "1.0", **PAGE,
            "architecture": "X86_64", "chipset": "INTEL", "chipsetGeneration": "4",
        },
    ],
    "GetMicrovmImageBuild": lambda t: [
        {"imageIdentifier": t.image, "imageVersion": "1.0", "buildId": t.build},
    ],
    "ListManagedMicrovmImages": lambda t: [{}, PAGE],
    "ListManagedMicrovmImageVersions": lambda t: [{"imageIdentifier": t.base}, {"imageIdentifier": t.base, **PAGE}],
    "RunMicrovm": run,
    "GetMicrovm": lambda t: [{"microvmIdentifier": t.microvm}],
    "ListMicrovms": lambda t: [{}, {**PAGE, "imageIdentifier": t.image, "imageVersion": "1.0"}],
    "SuspendMicrovm": lambda t: [{"microvmIdentifier": own_microvm(t)}],
    "ResumeMicrovm": lambda t: [{"microvmIdentifier": own_microvm(t)}],
    "TerminateMicrovm": lambda t: [{"microvmIdentifier": own_microvm(t)}],
    "CreateMicrovmAuthToken": lambda t: [
        {"microvmIdentifier": t.microvm, "expirationInMinutes": 1, "allowedPorts": [{"port": 1}]},
        {"microvmIdentifier": t.microvm, "expirationInMinutes": 60, "allowedPorts": PORTS},
    ],
    "CreateMicrovmShellAuthToken": lambda t: [{"microvmIdentifier": t.microvm, "expirationInMinutes": 60}],
    "TagResource": lambda t: [
        {"Resource": t.image, "Tags": {"team": "a team", "k" * 128: "v" * 256}},
        {"Resource": t.connector_arn, "Tags": {"team": "a team"}},
    ],
    "UntagResource": lambda t: [
        {"Resource": t.image, "TagKeys": ["team", "not there"]},
        {"Resource": t.connector_arn, "TagKeys": ["team"]},
    ],
    "ListTags": lambda t: [{"Resource": t.image}, {"Resource": t.connector_arn}],
    "CreateNetworkConnector": lambda t: [
        {"Name": t.name, "Configuration": VPC},
        {
            "Name": t.name, "Configuration": VPC, "OperatorRole": t.bed.role(),
            "ClientToken": str(uuid.uuid4()), "Tags": {"team": "a team"},
        },
    ],
    "GetNetworkConnector": lambda t: [{"Identifier": t.connector}],
    "ListNetworkConnectors": lambda t: [{}, {"State": "ACTIVE", "MaxItems": 50}],
    "ListNetworkConnectorVersions": lambda t: [
        {"Identifier": t.connector}, {"Identifier": t.connector, "State": "ACTIVE", "MaxItems": 50},
    ],
    "UpdateNetworkConnector": lambda t: [
        {"Identifier": t.doomed_connector},
        {
            "Identifier": t.doomed_connector, "Configuration": VPC, "OperatorRole": t.bed.role(),
            "ClientToken": str(uuid.uuid4()),
        },
    ],
    "DeleteNetworkConnector": lambda t: [{"Identifier": t.doomed_connector}],
}
# Given by an answer, and looked at where listings are followed through.
FROM_ANSWERS = {"nextToken", "Marker"}


def two_versions(t):
    return updated(t.bed, t.doomed_image) if isinstance(t, There) else t.image


def own_microvm(t):
    return t.made_microvm() if isinstance(t, There) else t.microvm


def examples(operation, things):
    """An operation's examples, of these things."""
    table = EXAMPLES.get(operation.name)
    assert table, f"{operation} has no example: enter it in examples.py"
    return table(things)
