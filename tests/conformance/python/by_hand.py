"""Requests that no SDK would send, signed all the same."""

import datetime
import http.client
import json
from urllib.parse import quote, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

import botocore.auth

from bed import REGION, bed, fresh
from examples import Absent, There, image
from replies import COMMON_ERRORS, Reply, check_head
from trials import test

IMAGES = "/2025-09-09/microvm-images"
MICROVMS = "/2025-09-09/microvms"
CONNECTORS = "/2026-04-04/network-connectors"
TAGS = "/2017-03-31/tags"
MEBIBYTE = 1 << 20


def send(method, path, body=b"", *, sign=True, change=None, region=REGION, service="lambda", key=None, at="default"):
    """A request as it stands; `change` may alter it once it is signed."""
    place = bed(at)
    request = AWSRequest(method, place.url + path, data=body, headers={"Content-Type": "application/json"})
    if sign:
        key = key or place.key("root")
        credentials = Credentials(key["id"], key["secret"], key.get("token"))
        SigV4Auth(credentials, service, region).add_auth(request)
    headers = dict(request.headers.items())
    if change:
        change(headers)
    where = urlsplit(place.url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=20)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        try:
            connection.send(body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # Refused before its end: the answer is there already.
        answer = connection.getresponse()
        received = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, received, answer.read())
    finally:
        connection.close()


def refused(reply, *names):
    check_head(reply)
    assert reply.error in names, f"expected {' or '.join(names)}: {reply}"
    if reply.error in COMMON_ERRORS:
        assert reply.status == COMMON_ERRORS[reply.error], f"{reply}"
    assert reply.message, f"{reply}"
    assert isinstance(reply.body, dict)


@test
def bodies_that_are_no_json():
    for method, path in [("POST", IMAGES), ("POST", MICROVMS), ("POST", CONNECTORS),
                         ("PUT", f"{IMAGES}/{quote(Absent().image, safe='')}"),
                         ("POST", f"{TAGS}/{quote(Absent().image, safe='')}")]:
        for body in [b"{", b"{}}", b'{"a":}', b"\xff\xfe", b"'", b'{"a":"\xff"}', b"nul", b" ",
                     b'{"a":1,}', b"\x00", b"[" * 100_000, b'{"a":' * 10_000, b'{"a":"\\ud800"}',
                     b'{"a":1e999}', b'{"a":' + b"1" * 10_000 + b"}"]:
            reply = send(method, path, body)
            expected = ["SerializationException"]
            # Read well, and lacking everything.
            if body == b'{"a":1e999}' or body.startswith(b'{"a":11') or body == b'{"a":"\\ud800"}' or body == b" ":
                expected += ["ValidationException", "InvalidParameterValueException"]
            refused(reply, *expected)


@test
def a_name_that_is_given_twice():
    things = There()
    members = json.dumps({**image(things)})[1:]
    reply = send("POST", IMAGES, f'{{"name":"x","name":"{fresh("twice")}",{members}'.encode())
    assert reply.status == 201 and reply.body["name"] != "x", f"the last one counts: {reply}"


@test
def a_body_that_is_too_long():
    body = b'{"a":"' + b"x" * MEBIBYTE + b'"}'
    refused(send("POST", MICROVMS, body), "RequestEntityTooLargeException")


@test
def a_body_where_none_belongs():
    reply = send("GET", IMAGES, b'{"maxResults": "x"}')
    assert reply.status == 200, f"members of the query are looked for there alone: {reply}"


@test
def escapes_that_are_none():
    for path in [f"{IMAGES}/%zz", f"{IMAGES}/%", f"{IMAGES}/%f", f"{IMAGES}/%ff", f"{MICROVMS}/%00",
                 f"{MICROVMS}/%C3%28", f"{MICROVMS}?nextToken=%zz", f"{MICROVMS}?nextToken=%ff",
                 f"{MICROVMS}?%ff=1", f"{TAGS}/%ff", f"{CONNECTORS}/%ff"]:
        reply = send("GET", path)
        assert 400 <= reply.status < 500, f"{path}: {reply}"
        refused(reply, "SerializationException", "ValidationException", "InvalidParameterValueException",
                "UnknownOperationException", "ResourceNotFoundException", "InvalidSignatureException")


@test
def a_base64_token_that_is_not_escaped():
    reply = send("GET", f"{MICROVMS}?nextToken=AAA=")
    refused(reply, "InvalidSignatureException", "ValidationException")


@test
def paths_and_methods_of_no_operation():
    for method, path in [("GET", "/2025-09-09/"), ("GET", "/2025-09-09/nothing"), ("PATCH", MICROVMS),
                         ("DELETE", IMAGES), ("PUT", f"{MICROVMS}/x"), ("POST", f"{MICROVMS}/x/nothing"),
                         ("GET", f"{MICROVMS}/x/suspend"), ("PATCH", CONNECTORS), ("GET", "/2026-04-04/x"),
                         ("PUT", f"{TAGS}/x"), ("GET", "/2017-03-31/functions"), ("GET", f"{IMAGES}//versions"),
                         ("OPTIONS", IMAGES), ("TRACE", IMAGES), ("BREW", IMAGES)]:
        refused(send(method, path), "UnknownOperationException", "ValidationException")


@test
def a_parameter_of_the_path_that_is_empty():
    for path in [f"{IMAGES}/", f"{MICROVMS}/", f"{CONNECTORS}/", f"{TAGS}/", f"{IMAGES}/x/versions/"]:
        refused(send("GET", path), "UnknownOperationException", "ValidationException",
                "InvalidParameterValueException")


@test
def an_arn_with_a_slash_in_place_of_the_colon():
    """As the service has it: escaped it is denied, bare it is no path."""
    arn = Absent().image.replace("microvm-image:", "microvm-image/")
    refused(send("GET", f"{IMAGES}/{quote(arn, safe='')}"), "AccessDeniedException")
    reply = send("GET", f"{IMAGES}/{quote(arn, safe='/')}")
    assert reply.status == 404, f"{reply}"


@test
def a_signature_of_another_region_or_service():
    for region in ["eu-central-1", "nowhere", "US-EAST-1"]:
        refused(send("GET", MICROVMS, region=region), "InvalidSignatureException", "AccessDeniedException")
    refused(send("GET", MICROVMS, service="ec2"), "InvalidSignatureException", "IncompleteSignatureException")


@test
def no_signature():
    for path in [MICROVMS, IMAGES, CONNECTORS, f"{TAGS}/x"]:
        refused(send("GET", path, sign=False), "MissingAuthenticationTokenException")


@test
def signatures_that_are_broken():
    def authorization(alter):
        def change(headers):
            headers["Authorization"] = alter(headers["Authorization"])
        return change

    broken = ["InvalidSignatureException", "IncompleteSignatureException", "UnrecognizedClientException",
              "MissingAuthenticationTokenException"]
    for alter in [
        lambda text: text[:-1] + ("0" if text[-1] != "0" else "1"),
        lambda text: text[:-1],
        lambda text: text + "0",
        lambda text: text.upper(),
        lambda text: text.replace("SignedHeaders=", "SignedHeaders=;"),
        lambda text: text.replace("SignedHeaders=", "SignedHeaders=absent;"),
        lambda text: text.replace("Credential=", "Credential=/"),
        lambda text: text.replace("aws4_request", "aws4"),
        lambda text: text.replace("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA512"),
        lambda text: text.split("Signature=")[0],
        lambda text: "AWS4-HMAC-SHA256",
        lambda text: "AWS4-HMAC-SHA256 Credential=,SignedHeaders=,Signature=",
        lambda text: "Bearer x",
        lambda text: "x" * 8000,
        lambda text: "",
    ]:
        refused(send("GET", MICROVMS, change=authorization(alter)), *broken)


@test
def what_was_signed_and_then_changed():
    def other_date(headers):
        date = headers["X-Amz-Date"]
        headers["X-Amz-Date"] = f"{date[:-2]}{(int(date[-2]) + 1) % 10}Z"

    def other_host(headers):
        headers["Host"] = "elsewhere"

    refused(send("GET", MICROVMS, change=other_host), "InvalidSignatureException")
    refused(send("GET", MICROVMS, change=other_date), "InvalidSignatureException")


@test
def dates_that_are_past_or_to_come():
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    for moment in [now - datetime.timedelta(minutes=20), now + datetime.timedelta(minutes=20),
                   now - datetime.timedelta(days=3), datetime.datetime(1970, 1, 1), datetime.datetime(9999, 1, 1)]:
        refused(sent_at(moment), "InvalidSignatureException")


def sent_at(moment):
    """A request that was signed at another time."""
    true = botocore.auth.get_current_datetime
    botocore.auth.get_current_datetime = lambda *_, **__: moment
    try:
        return send("GET", MICROVMS)
    finally:
        botocore.auth.get_current_datetime = true


@test
def dates_that_are_none():
    for text in ["", "x", "20261124", "20261332T000000Z", "2026-11-24T00:00:00Z", "99999999T999999Z"]:
        def change(headers):
            headers["X-Amz-Date"] = text

        refused(send("GET", MICROVMS, change=change), "InvalidSignatureException", "IncompleteSignatureException",
                "MissingAuthenticationTokenException")


@test
def keys_that_are_nobodys():
    refused(send("GET", MICROVMS, key={"id": "AKIANOBODY", "secret": "x"}), "UnrecognizedClientException")
    root = bed("default").key("root")
    refused(send("GET", MICROVMS, key={"id": root["id"], "secret": "x"}), "InvalidSignatureException")
    refused(send("GET", MICROVMS, key={**root, "token": "x"}), "UnrecognizedClientException")


@test
def sessions():
    session, expired = (bed("default").key(name) for name in ("session", "expired"))
    assert send("GET", MICROVMS, key=session).status == 200
    refused(send("GET", MICROVMS, key=expired), "ExpiredTokenException")
    for token in [None, "", "x", session["token"][:-1], session["token"].swapcase(), expired["token"]]:
        refused(send("GET", MICROVMS, key={**session, "token": token}), "UnrecognizedClientException",
                "ExpiredTokenException")
    refused(send("GET", MICROVMS, key={**session, "secret": "x"}), "InvalidSignatureException")


@test
def many_headers_and_long_paths():
    def many(headers):
        headers.update({f"x-many-{number}": "x" for number in range(60)})

    assert send("GET", MICROVMS, change=many).status == 200
    reply = send("GET", f"{MICROVMS}/{'x' * 20_000}")
    assert 400 <= reply.status < 500, f"{reply}"
