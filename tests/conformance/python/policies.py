"""Every operation, asked by users with policies: its own action on its own resource is all that it takes."""

import json

from bed import bed, fresh
from examples import There, examples
from replies import check_error, check_success
from trials import where

# What is handed on to the service, whoever asks.
PASSING = [
    {"Effect": "Allow", "Action": "iam:PassRole", "Resource": "arn:aws:iam::*:role/*",
     "Condition": {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}},
    {"Effect": "Allow", "Action": "lambda:PassNetworkConnector", "Resource": "*"},
]
# What these are about is no resource of the account's, or not known before they are carried out.
WITHOUT_RESOURCE = {
    "ListMicrovmImages", "ListMicrovms", "ListManagedMicrovmImages", "ListManagedMicrovmImageVersions",
    "ListNetworkConnectors", "CreateNetworkConnector",
}


def its_own_action_is_enough(operation):
    user = user_with([{"Effect": "Allow", "Action": f"lambda:{operation}", "Resource": "*"}, *PASSING])
    check_success(operation, ask(operation, user))


def everything_else_is_not_enough(operation):
    everything = {"Effect": "Allow", "NotAction": f"lambda:{operation}", "Resource": "*"}
    denied(operation, user_with([everything]), f"because no identity-based policy allows the lambda:{operation} action")


def a_denial_is_final(operation):
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    but = {"Effect": "Deny", "Action": f"LAMBDA:{str(operation).lower()}", "Resource": "*"}
    denied(operation, user_with([everything, but]), "with an explicit deny in an identity-based policy")


@where(lambda operation: operation.name not in WITHOUT_RESOURCE)
def another_resource_does_not_help(operation):
    others = ["arn:aws:lambda:*:*:microvm-image:another-*", "arn:aws:lambda:*:*:network-connector:another-*"]
    user = user_with([{"Effect": "Allow", "Action": "lambda:*", "Resource": others}, *PASSING])
    denied(operation, user, f"because no identity-based policy allows the lambda:{operation} action")


# What hands on roles or connectors, also by default, needs leave for that.
HANDS_ON = {
    "CreateMicrovmImage": ["iam:PassRole", "lambda:PassNetworkConnector"],
    "UpdateMicrovmImage": ["iam:PassRole", "lambda:PassNetworkConnector"],
    "RunMicrovm": ["lambda:PassNetworkConnector"],
}


@where(lambda operation: operation.name in HANDS_ON)
def nothing_may_be_handed_on(operation):
    for action in HANDS_ON[operation.name]:
        user = user_with([{"Effect": "Allow", "NotAction": action, "Resource": "*"}])
        denied(operation, user, f"because no identity-based policy allows the {action} action")


def user_with(statements):
    name = fresh("user")
    bed("default").key(name)
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    iam = bed("default").client("iam", "root")
    iam.put_user_policy(UserName=name, PolicyName="the-only-one", PolicyDocument=document)
    return name


def ask(operation, user):
    return bed("default").call(operation, examples(operation, There())[0], who=user)


def denied(operation, user, reason):
    reply = ask(operation, user)
    check_error(operation, reply, "AccessDeniedException")
    arn = f"arn:aws:iam::{bed('default').account}:user/{user}"
    assert reply.message.startswith(f"User: {arn} is not authorized to perform: "), reply.message
    assert reply.message.endswith(reason), f"expected … {reason}\n     got {reply.message}"
