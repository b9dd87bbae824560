"""The lifecycle of an image and of a MicroVM, by boto3. What it is made of stands in the environment."""

import os
import ssl
import time
import urllib.request
import uuid

import boto3

BASE = {"baseImageArn": os.environ["BASE_IMAGE"], "buildRoleArn": os.environ["BUILD_ROLE"]}
BUILD_SECONDS, SECONDS = 900, 60

client = boto3.client("lambda-microvms")


def until(what, seconds, look):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if look():
            return
        time.sleep(0.1)
    raise SystemExit(f"{what}: not within {seconds} s")


def image_state(arn):
    return client.get_microvm_image(imageIdentifier=arn)["state"]


def microvm_state(id):
    return client.get_microvm(microvmIdentifier=id)["state"]


def create():
    made = client.create_microvm_image(
        **BASE,
        name=os.environ["IMAGE_NAME"],
        codeArtifact={"uri": os.environ["ARTIFACT"]},
        resources=[{"minimumMemoryInMiB": 512}],
        hooks={
            "port": 9000,
            # Said aloud, as the SDK for Rust does: the four clients make one and the same request.
            "microvmImageHooks": {"ready": "ENABLED", "readyTimeoutInSeconds": 300, "validate": "DISABLED"},
        },
        tags={"kept": "yes"},
        clientToken=os.environ["CREATE_TOKEN"],
    )
    arn = made["imageArn"]
    until(f"{arn} to be built", BUILD_SECONDS, lambda: not image_state(arn).endswith("ING"))
    assert image_state(arn) == "CREATED", builds(arn)
    return arn


def builds(arn):
    pages = client.get_paginator("list_microvm_image_builds").paginate(imageIdentifier=arn, imageVersion="1.0")
    ids = [item["buildId"] for page in pages for item in page["items"]]
    return [client.get_microvm_image_build(imageIdentifier=arn, imageVersion="1.0", buildId=id) for id in ids]


def versions(arn):
    listed = client.list_microvm_image_versions(imageIdentifier=arn)["items"]
    assert [item["imageVersion"] for item in listed] == ["1.0"], listed
    version = client.get_microvm_image_version(imageIdentifier=arn, imageVersion="1.0")
    assert (version["state"], version["status"]) == ("SUCCESSFUL", "ACTIVE"), version
    assert all(build["buildState"] == "SUCCESSFUL" for build in builds(arn)), builds(arn)


def run(arn):
    token = str(uuid.uuid4())
    first = client.run_microvm(imageIdentifier=arn, maximumDurationInSeconds=600, clientToken=token)
    again = client.run_microvm(imageIdentifier=arn, maximumDurationInSeconds=600, clientToken=token)
    id = first["microvmId"]
    assert id == again["microvmId"], (first, again)
    until(f"{id} to run", SECONDS, lambda: microvm_state(id) == "RUNNING")
    pages = client.get_paginator("list_microvms").paginate(imageIdentifier=arn)
    assert id in [item["microvmId"] for page in pages for item in page["items"]]
    return id, first["endpoint"]


def request(id, endpoint):
    answer = client.create_microvm_auth_token(
        microvmIdentifier=id, expirationInMinutes=5, allowedPorts=[{"port": 8080}]
    )
    request = urllib.request.Request(f"https://{endpoint}/", headers=answer["authToken"])
    context = ssl.create_default_context(cafile=os.environ["AWS_CA_BUNDLE"])
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    with opener.open(request, timeout=SECONDS) as answer:
        assert answer.status == 200


def sleep_and_wake(id):
    client.suspend_microvm(microvmIdentifier=id)
    until(f"{id} to sleep", SECONDS, lambda: microvm_state(id) == "SUSPENDED")
    client.resume_microvm(microvmIdentifier=id)
    until(f"{id} to wake", SECONDS, lambda: microvm_state(id) == "RUNNING")


def switch_off_and_on(arn):
    client.update_microvm_image_version(imageIdentifier=arn, imageVersion="1.0", status="INACTIVE")
    try:
        client.run_microvm(imageIdentifier=arn)
        raise SystemExit("an inactive version runs")
    except client.exceptions.ResourceNotFoundException as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    version = client.update_microvm_image_version(imageIdentifier=arn, imageVersion="1.0", status="ACTIVE")
    assert version["status"] == "ACTIVE", version


def tag(arn):
    client.tag_resource(Resource=arn, Tags={"client": "boto3"})
    assert client.list_tags(Resource=arn)["Tags"] == {"kept": "yes", "client": "boto3"}
    client.untag_resource(Resource=arn, TagKeys=["client"])
    assert client.get_microvm_image(imageIdentifier=arn)["tags"] == {"kept": "yes"}


def terminate(id):
    client.terminate_microvm(microvmIdentifier=id)
    until(f"{id} to end", SECONDS, lambda: microvm_state(id) == "TERMINATED")
    assert client.get_microvm(microvmIdentifier=id)["terminatedAt"]


def fail_and_delete():
    artifact = {"uri": "s3://artifacts/there-is-no-such-key.zip"}
    made = client.create_microvm_image(**BASE, name=os.environ["DOOMED_NAME"], codeArtifact=artifact)
    arn = made["imageArn"]
    until(f"{arn} to fail", SECONDS, lambda: image_state(arn) == "CREATE_FAILED")
    assert "there-is-no-such-key.zip" in builds(arn)[0]["stateReason"]
    client.delete_microvm_image(imageIdentifier=arn)

    def gone():
        try:
            image_state(arn)
        except client.exceptions.ResourceNotFoundException:
            return True

    until(f"{arn} to be gone", SECONDS, gone)


image = create()
versions(image)
microvm, host = run(image)
request(microvm, host)
sleep_and_wake(microvm)
request(microvm, host)
switch_off_and_on(image)
tag(image)
terminate(microvm)
fail_and_delete()
