"""What a program with an unmodified boto3, and nothing said to it of where and who it is, gets of AWS.

    GET /caller                   the caller's ARN
    GET /object?bucket=B&key=K    the object's text
    GET /environment              the process's environment
    GET /status?path=P            the status that an unsigned request is answered with

The answer is JSON: {"answer": ...}, or {"error": CODE} with the code of a service's error. On port 9000 it is ready once it is.
"""

import http.client
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

TIMEOUT = 20
PATIENT = Config(connect_timeout=TIMEOUT, read_timeout=TIMEOUT, retries={"total_max_attempts": 1})


def client(service: str):
    # A session of its own reads the credentials anew: what was read before the snapshot is the build role's.
    return boto3.Session(region_name=os.environ["AWS_REGION"]).client(service, config=PATIENT)


def status(path: str) -> int:
    url = urlsplit(os.environ["AWS_ENDPOINT_URL"])
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=TIMEOUT)
    connection.request("GET", path)
    return connection.getresponse().status


def answer(path: str, query: dict):
    match path:
        case "/caller":
            return client("sts").get_caller_identity()["Arn"]
        case "/object":
            got = client("s3").get_object(Bucket=query["bucket"], Key=query["key"])
            return got["Body"].read().decode()
        case "/environment":
            return dict(os.environ)
        case "/status":
            return status(query["path"])


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        try:
            said = {"answer": answer(url.path, {name: values[0] for name, values in parse_qs(url.query).items()})}
        except ClientError as error:
            said = {"error": error.response["Error"]["Code"]}
        except Exception as error:
            said = {"error": repr(error)}
        self.answer(said)

    def do_POST(self) -> None:
        self.answer({})

    def answer(self, said: dict) -> None:
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


# What takes long is done before the snapshot.
client("s3"), client("sts")
threading.Thread(target=ThreadingHTTPServer(("", 9000), App).serve_forever).start()
ThreadingHTTPServer(("", 8080), App).serve_forever()
