"""Runs the tests that the harness names on its standard input, one a line, and answers each with a line of JSON.

With `list` it prints the names instead.
"""

import json
import sys
import traceback

import answered
import by_hand
import calls
import cloudwatch
import constraints
import errors
import listings
import observed
import policies
import wrong_types
from model import operations
from trials import always

PER_OPERATION = [
    calls.every_example,
    calls.unknown_members_are_ignored,
    answered.every_member,
    constraints.one_at_a_time,
    constraints.several_at_once,
    wrong_types.every_wrong_type,
    wrong_types.nulls_within,
    policies.its_own_action_is_enough,
    policies.everything_else_is_not_enough,
    policies.a_denial_is_final,
    policies.another_resource_does_not_help,
    policies.nothing_may_be_handed_on,
]


def tests():
    found = {}
    for operation in operations():
        for test in PER_OPERATION:
            if not getattr(test, "applies", always)(operation):
                continue
            name = f"{test.__module__}::{operation}::{test.__name__}"
            found[name] = lambda operation=operation, test=test: test(operation)
        for error in operation.errors:
            found[f"errors::{operation}::{error}"] = lambda o=operation, e=error: errors.provoked(o, e)
    for operation, token in listings.paged():
        for test in (listings.leads_through_everything, listings.tokens_cannot_be_made_up):
            found[f"listings::{operation}::{test.__name__}"] = (
                lambda operation=operation, token=token, test=test: test(operation, token)
            )
    for module in (observed, by_hand, cloudwatch):
        for name, test in vars(module).items():
            if getattr(test, "is_test", False):
                found[f"{module.__name__}::{name}"] = test
    return found


def main():
    found = tests()
    if sys.argv[1:] == ["list"]:
        print("\n".join(found))
        return
    for line in sys.stdin:
        failure = None
        try:
            found[line.strip()]()
        except Exception as error:
            told = str(error) if isinstance(error, AssertionError) and str(error) else traceback.format_exc()
            failure = told
        print(json.dumps({"failure": failure}), flush=True)


main()
