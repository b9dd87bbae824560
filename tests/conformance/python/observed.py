"""What was observed of the service beyond its model: SPEC's sections stand beside each."""

from bed import BASE_IMAGE, bed, fresh, until
from examples import (
    FAILS, HOOKS, MANAGED, NEVER_ENDS, Absent, There, image, reach, settled, updated,
)
from model import operations
from replies import check_error, check_success
from trials import test

OPERATIONS = {operation.name: operation for operation in operations()}


def call(name, /, **params):
    return bed("default").call(OPERATIONS[name], params)


def done(name, /, **params):
    reply = call(name, **params)
    check_success(OPERATIONS[name], reply)
    return reply.body


def refused(kind, message, name, /, **params):
    reply = call(name, **params)
    check_error(OPERATIONS[name], reply, kind)
    assert reply.message == message, f"expected {message!r}\n     got {reply.message!r}"


def invalid(message, name, /, **params):
    refused("ValidationException", message, name, **params)


def created(**members):
    return {**image(There()), "name": fresh("observed"), **members}


@test
def identifiers_that_are_no_arns():
    """2.4"""
    invalid("Malformed ARN - doesn't start with 'arn:'", "RunMicrovm", imageIdentifier="my-app")
    for name in ["GetMicrovmImage", "DeleteMicrovmImage", "ListMicrovmImageVersions"]:
        invalid("Invalid ARN format: my-app", name, imageIdentifier="my-app")


@test
def the_model_comes_before_the_rest():
    """2.4: length, then the ARN's syntax, then what there is."""
    long = "1 validation error detected: Value at 'runHookPayload' failed to satisfy constraint: " \
           "Member must have length less than or equal to 4096"
    invalid(long, "RunMicrovm", imageIdentifier="my-app", runHookPayload="x" * 4097)


@test
def hooks():
    """2.4"""
    plain = There().made_image()
    invalid("The run hook must be enabled in the MicroVM image to pass the run hook payload",
            "RunMicrovm", imageIdentifier=plain, runHookPayload="x")
    for hook in ["run", "resume", "suspend", "terminate"]:
        invalid(
            "The ready (/ready) MicroVM image hook must be enabled when any MicroVM lifecycle hook (run, resume, "
            "suspend, or terminate) is enabled. The ready hook signals when the application has finished initializing "
            "so the snapshot is taken in a ready state.",
            "CreateMicrovmImage", **created(hooks={"microvmHooks": {hook: "ENABLED"}}),
        )


@test
def sizes():
    """2.4"""
    for size in [0, 256, 3000, 16384]:
        invalid(
            f"The requested memory size of {size} MiB is not supported by base MicroVM image {BASE_IMAGE}. "
            "Supported memory sizes in MiB are: [512, 1024, 2048, 4096, 8192].",
            "CreateMicrovmImage", **created(resources=[{"minimumMemoryInMiB": size}]),
        )


@test
def artifacts():
    """2.4"""
    registry = "123456789012.dkr.ecr.us-east-1.amazonaws.com/x"
    for uri in ["https://x/y", "s3://", "s3://bucket", "s3://bucket/", registry]:
        invalid("CodeArtifact URI must be a valid S3 URI in the format: s3://<bucket>/<key>",
                "CreateMicrovmImage", **created(codeArtifact={"uri": uri}))


@test
def names_are_taken_until_the_image_is_gone():
    """1.5, 2.4"""
    params = created()
    done("CreateMicrovmImage", **params)
    name = params["name"]
    invalid(f"A MicroVM image with the name '{name}' already exists in this account", "CreateMicrovmImage", **params)


@test
def reserved_variables():
    """2.4"""
    invalid("Environment variable key 'AWS_REGION' is reserved",
            "CreateMicrovmImage", **created(environmentVariables={"AWS_REGION": "x"}))


@test
def base_image_versions():
    """1.2: an integer goes in, N.0 comes out; what is not there is refused at once."""
    assert done("CreateMicrovmImage", **created(baseImageVersion="1"))["baseImageVersion"] == "1.0"
    assert done("CreateMicrovmImage", **created())["baseImageVersion"] == "1.0"
    invalid(f"No managed MicroVM Image with arn {BASE_IMAGE} and version 999 is available",
            "CreateMicrovmImage", **created(baseImageVersion="999"))


@test
def nothing_to_run():
    """2.4: also of an image that is not there."""
    arn = Absent().image
    refused("ResourceNotFoundException", f"No active version found for MicroVM image {arn}",
            "RunMicrovm", imageIdentifier=arn)
    refused("ResourceNotFoundException", f"No active version found for MicroVM image {arn} and version 1.0",
            "RunMicrovm", imageIdentifier=arn, imageVersion="1.0")


@test
def an_inactive_version_is_not_run():
    """1.3, 1.5"""
    arn = There().made_image()
    done("UpdateMicrovmImageVersion", imageIdentifier=arn, imageVersion="1.0", status="INACTIVE")
    refused("ResourceNotFoundException", f"No active version found for MicroVM image {arn}",
            "RunMicrovm", imageIdentifier=arn)
    done("UpdateMicrovmImageVersion", imageIdentifier=arn, imageVersion="1", status="ACTIVE")
    done("RunMicrovm", imageIdentifier=arn)


@test
def what_is_not_there():
    """2.4"""
    absent = Absent()
    refused("ResourceNotFoundException", f"Unable to find microvmIdentifier {absent.microvm}",
            "GetMicrovm", microvmIdentifier=absent.microvm)
    refused("ResourceNotFoundException", f"MicroVMImage not found for MicroVMImageID: {absent.image}",
            "ListTags", Resource=absent.image)


@test
def connectors_of_a_run():
    """2.4, 7"""
    arn = There().made_image()
    invalid("Malformed network connector ARN", "RunMicrovm", imageIdentifier=arn, ingressNetworkConnectors=["x"])
    # AWS says so of NO_EGRESS, which there is here.
    unknown = MANAGED + "VPC_EGRESS"
    invalid(f"Unrecognized managed network connector ARN: {unknown}",
            "RunMicrovm", imageIdentifier=arn, egressNetworkConnectors=[unknown])


@test
def shells():
    """2.4"""
    def token(*names):
        ingress = [MANAGED + name for name in names]
        id = There().made_microvm(ingressNetworkConnectors=ingress)
        return {"microvmIdentifier": id, "expirationInMinutes": 5}

    for name in ["HTTP_INGRESS", "ALL_INGRESS", "NO_INGRESS"]:
        invalid("Shell access requires SHELL_INGRESS network connector to be configured on the MicroVM.",
                "CreateMicrovmShellAuthToken", **token(name))
    invalid("ALL_INGRESS cannot be combined with other ingress network connectors; use HTTP_INGRESS and/or "
            "SHELL_INGRESS instead", "CreateMicrovmShellAuthToken", **token("ALL_INGRESS", "HTTP_INGRESS"))
    done("CreateMicrovmShellAuthToken", **token("SHELL_INGRESS"))


@test
def tokens_last_an_hour():
    """2.4"""
    id = There().made_microvm()
    invalid("ExpirationMinutes 61 exceeded max allowed of 60.", "CreateMicrovmAuthToken",
            microvmIdentifier=id, expirationInMinutes=61, allowedPorts=[{"allPorts": {}}])


@test
def a_busy_image():
    """1.5, 2.4"""
    things = There()
    creating = things.made_image(uri=NEVER_ENDS)
    updating = updated(things.bed, things.made_image(), NEVER_ENDS)
    for arn, state in [(creating, "CREATING"), (updating, "UPDATING")]:
        message = f"MicroVM Image is already in state: {state}"
        refused("ConflictException", message, "UpdateMicrovmImage", **image(things), imageIdentifier=arn)
        refused("ConflictException", message, "DeleteMicrovmImage", imageIdentifier=arn)


@test
def an_image_in_use():
    """1.5: versions that may be run are no obstacle, MicroVMs are."""
    things = There()
    id = things.made_microvm()
    message = "Cannot delete MicroVM image with running MicroVMs"
    refused("ConflictException", message, "DeleteMicrovmImage", imageIdentifier=things.image)
    done("TerminateMicrovm", microvmIdentifier=id)
    reach(things.bed, id, "TERMINATED")
    assert done("DeleteMicrovmImage", imageIdentifier=things.image)["state"] == "DELETING"


@test
def versions_are_deleted_but_the_last():
    """1.5: active ones that run, and failed ones, without further ado."""
    things = There()
    arn = updated(things.bed, updated(things.bed, things.made_image()), FAILS)
    for version in ["1.0", "3.0"]:
        gone = {"imageIdentifier": arn, "imageVersion": version}
        assert done("DeleteMicrovmImageVersion", **gone)["state"] == "DELETING"
        settled(things.bed, arn)
        assert call("GetMicrovmImageVersion", **gone).status == 404
    assert done("GetMicrovmImage", imageIdentifier=arn)["state"] == "UPDATED"
    last = call("DeleteMicrovmImageVersion", imageIdentifier=arn, imageVersion="2.0")
    check_error(OPERATIONS["DeleteMicrovmImageVersion"], last, "ConflictException")


@test
def numbers_of_versions_are_not_given_twice():
    """1.2"""
    things = There()
    arn = updated(things.bed, things.made_image())
    done("DeleteMicrovmImageVersion", imageIdentifier=arn, imageVersion="2.0")
    settled(things.bed, arn)
    assert done("UpdateMicrovmImage", **image(things), imageIdentifier=arn)["imageVersion"] == "3.0"


@test
def what_is_done_already_is_success():
    """1.4"""
    things = There()
    id = things.made_microvm()
    done("ResumeMicrovm", microvmIdentifier=id)
    done("SuspendMicrovm", microvmIdentifier=id)
    reach(things.bed, id, "SUSPENDED")
    done("SuspendMicrovm", microvmIdentifier=id)
    done("TerminateMicrovm", microvmIdentifier=id)
    reach(things.bed, id, "TERMINATED")
    done("TerminateMicrovm", microvmIdentifier=id)
    assert done("GetMicrovm", microvmIdentifier=id)["stateReason"] == "Success."


@test
def a_token_makes_one_thing():
    """1.4: the original in its present state, whatever the order of members."""
    things = There()
    token = things.name
    first = done("RunMicrovm", imageIdentifier=things.image, maximumDurationInSeconds=60, clientToken=token)
    reach(things.bed, first["microvmId"], "RUNNING")
    again = done("RunMicrovm", clientToken=token, maximumDurationInSeconds=60, imageIdentifier=things.image)
    assert (again["microvmId"], again["state"]) == (first["microvmId"], "RUNNING")
    # Another operation's tokens are others.
    done("CreateMicrovmImage", **created(clientToken=token))


@test
def a_token_of_an_image_that_is_gone_makes_a_new_one():
    """1.4: not the wedge that was observed."""
    things = There()
    params = created(clientToken=things.name)
    arn = settled(things.bed, done("CreateMicrovmImage", **params)["imageArn"])
    done("DeleteMicrovmImage", imageIdentifier=arn)
    until("the image to be gone", lambda: call("GetMicrovmImage", imageIdentifier=arn).status == 404)
    done("CreateMicrovmImage", **params)
    settled(things.bed, arn)
    assert done("GetMicrovmImage", imageIdentifier=arn)["state"] == "CREATED"


@test
def defaults_of_a_run():
    """2.5"""
    things = There()
    for members in [{}, {"egressNetworkConnectors": []}]:
        run = done("RunMicrovm", imageIdentifier=things.image, **members)
        assert run["state"] == "PENDING" and run["imageVersion"] == "1.0", run
        assert run["maximumDurationInSeconds"] == 28800, run
        assert run["ingressNetworkConnectors"] == [MANAGED + "HTTP_INGRESS"], run
        assert run["egressNetworkConnectors"] == [MANAGED + "INTERNET_EGRESS"], run
        assert not {"idlePolicy", "executionRoleArn", "stateReason", "terminatedAt"} & set(run), run


@test
def an_update_replaces_everything():
    """2.5"""
    things = There()
    arn = things.made_image(hooks=HOOKS, environmentVariables={"A": "b"}, additionalOsCapabilities=["ALL"],
                            resources=[{"minimumMemoryInMiB": 512}], tags={"kept": "yes"})
    updated(things.bed, arn)
    version = done("GetMicrovmImageVersion", imageIdentifier=arn, imageVersion="2.0")
    assert version["resources"] == [{"minimumMemoryInMiB": 2048}], version
    assert not version.get("environmentVariables") and not version.get("additionalOsCapabilities"), version
    hooks = [state for name, state in version["hooks"]["microvmHooks"].items() if "Timeout" not in name]
    assert set(hooks) == {"DISABLED"}, version
    assert done("GetMicrovmImage", imageIdentifier=arn)["tags"] == {"kept": "yes"}


@test
def a_filter_looks_at_each_page_by_itself():
    """2.6: pages may be empty and yet not the last."""
    name = fresh("needle")
    done("CreateMicrovmImage", **{**created(), "name": name})
    found, params, pages = [], {"nameFilter": name[3:], "maxResults": 1}, 0
    while True:
        page = done("ListMicrovmImages", **params)
        found += [item["name"] for item in page["items"]]
        pages += 1
        if "nextToken" not in page:
            break
        params["nextToken"] = page["nextToken"]
    assert found == [name] and pages > 1, (found, pages)


@test
def failures_are_told_by_the_build_alone():
    """2.7"""
    things = There()
    arn = things.made_image(uri=FAILS)
    seen = done("GetMicrovmImage", imageIdentifier=arn)
    assert (seen["state"], seen["latestFailedImageVersion"]) == ("CREATE_FAILED", "1.0"), seen
    version = done("GetMicrovmImageVersion", imageIdentifier=arn, imageVersion="1.0")
    assert (version["state"], version["status"]) == ("FAILED", "INACTIVE") and "stateReason" not in version, version
    build = done("ListMicrovmImageBuilds", imageIdentifier=arn, imageVersion="1.0")["items"][0]
    assert build["stateReason"] == "The container image build failed.", build


@test
def microvms_have_no_tags():
    """2.8: refused by a pattern."""
    arn = f"arn:aws:lambda:us-east-1:123456789012:microvm:{There().made_microvm()}"
    reply = call("TagResource", Resource=arn, Tags={"a": "b"})
    check_error(OPERATIONS["TagResource"], reply, "ValidationException")
    assert "regular expression pattern" in reply.message, reply.message


@test
def tags_are_merged():
    """2.8"""
    arn = There().made_image(tags={"a": "1", "b": "2"})
    done("TagResource", Resource=arn, Tags={"b": "3", "c": ""})
    done("UntagResource", Resource=arn, TagKeys=["a", "never"])
    assert done("ListTags", Resource=arn) == {"Tags": {"b": "3", "c": ""}}
    assert done("GetMicrovmImage", imageIdentifier=arn)["tags"] == {"b": "3", "c": ""}


@test
def roles_that_the_service_may_not_assume():
    """2.4, 8"""
    account = bed("default").account
    for role in [f"arn:aws:iam::{account}:role/{fresh('absent')}", "arn:aws:iam::210987654321:role/MicroVMBuildRole"]:
        reply = call("CreateMicrovmImage", **created(buildRoleArn=role))
        check_error(OPERATIONS["CreateMicrovmImage"], reply, "ValidationException")
        assert reply.message.startswith("We were unable to assume the role provided"), reply.message


@test
def denials_are_in_the_services_words():
    """8"""
    things = There()
    reply = things.bed.call(OPERATIONS["RunMicrovm"], {"imageIdentifier": things.image}, who="nobody")
    check_error(OPERATIONS["RunMicrovm"], reply, "AccessDeniedException")
    assert reply.message == (
        f"User: arn:aws:iam::{things.bed.account}:user/nobody is not authorized to perform: lambda:RunMicrovm on "
        f"resource: {things.image} because no identity-based policy allows the lambda:RunMicrovm action"
    ), reply.message
