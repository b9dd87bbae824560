"""The servers under test, and calls to them by botocore."""

import json
import os
import time
import uuid
from functools import cache

from botocore.config import Config
from botocore.exceptions import ClientError

from model import SESSION
from replies import Reply

# Given by the harness: beds by name, each with its URL, region, account and keys.
SETTINGS = json.loads(os.environ["CONFORMANCE"])
REGION = SETTINGS["region"]
BASE_IMAGE = f"arn:aws:lambda:{REGION}:aws:microvm-image:al2023-1"
CONFIG = Config(
    parameter_validation=False,
    retries={"total_max_attempts": 1},
    # A prefix would make another name of an address.
    inject_host_prefix=False,
    connect_timeout=5,
    read_timeout=20,
    user_agent_extra="conformance",
)
DEADLINE = 20


class Bed:
    """One server."""

    def __init__(self, name):
        self.name = name
        self.settings = SETTINGS["beds"][name]
        self.url = self.settings["url"]
        self.account = self.settings["account"]
        self.replacement = self.response = None

    @cache
    def key(self, who):
        """The key of an account's root, or of a user of the first account without any policy."""
        return self.settings["keys"].get(who) or self.new_user(who)

    def new_user(self, name):
        iam = self.client("iam", "root")
        iam.create_user(UserName=name)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return {"id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}

    @cache
    def client(self, service, who):
        key = self.key(who)
        client = SESSION.create_client(
            service,
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id=key["id"],
            aws_secret_access_key=key["secret"],
            aws_session_token=key.get("token"),
            config=CONFIG,
        )
        client.meta.events.register("before-call", self._replace_body)
        client.meta.events.register("before-parse", self._keep)
        return client

    def _replace_body(self, params, **_):
        if self.replacement is not None:
            params["body"] = self.replacement

    def _keep(self, response_dict, **_):
        self.response = response_dict

    def call(self, operation, params, who="root", body=None):
        """What the operation answers. A `body` is sent in place of the one that botocore would make."""
        client = self.client(operation.service, who)
        self.replacement, self.response = body, None
        try:
            parsed = client._make_api_call(operation.name, {**params})
        except ClientError as error:
            parsed = error.response
        finally:
            self.replacement = None
        headers = {name.lower(): value for name, value in self.response["headers"].items()}
        return Reply(self.response["status_code"], headers, self.response["body"], parsed)

    def done(self, service, name, /, **params):
        """The answer of a call that sets a test up."""
        return self.client(service, "root")._make_api_call(name, params)

    def microvms(self, name, /, **params):
        return self.done("lambda-microvms", name, **params)

    def core(self, name, /, **params):
        return self.done("lambda-core", name, **params)

    def image_arn(self, name):
        return f"arn:aws:lambda:{REGION}:{self.account}:microvm-image:{name}"

    def connector_arn(self, id):
        return f"arn:aws:lambda:{REGION}:{self.account}:network-connector:{id}"

    def role(self, name="MicroVMBuildRole"):
        return f"arn:aws:iam::{self.account}:role/{name}"


bed = cache(Bed)


def fresh(prefix):
    """A name that nothing has yet."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def until(what, look):
    """What `look` finds at last."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.01)
    raise AssertionError(f"{what}: not within {DEADLINE} s")
