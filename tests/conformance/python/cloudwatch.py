"""CloudWatch Logs, by botocore: what is put is read, searched and followed, by whom policies let."""

import json
import threading
import time

from botocore.exceptions import ClientError

from bed import REGION, bed, fresh
from trials import test

DAY = 24 * 60 * 60 * 1000
PATTERNS = [("ERROR", [1, 3]), ("?INFO ?WARN", [0, 2]), ("disk -ERROR", [2]), ('"disk full"', [1]), ("%9[0-9]%", [2])]
LINES = ["INFO started", "ERROR disk full", "WARN disk at 97", "ERROR again"]


def logs(who="root"):
    return bed("default").client("logs", who)


def now():
    return int(time.time() * 1000)


def new_group(**settings):
    name = fresh("/test")
    logs().create_log_group(logGroupName=name, **settings)
    return name


def new_stream(group=None, lines=(), start=None, step=1):
    """A stream with these lines."""
    names = {"logGroupName": group or new_group(), "logStreamName": fresh("stream")}
    logs().create_log_stream(**names)
    if lines:
        put(names, lines, start, step)
    return names


def put(names, lines, start=None, step=1):
    start = now() if start is None else start
    events = [{"timestamp": start + number * step, "message": line} for number, line in enumerate(lines)]
    return logs().put_log_events(**names, logEvents=events)


def refused(code, message, call, /, **params):
    try:
        call(**params)
    except ClientError as error:
        told = error.response["Error"]
        assert told["Code"] == code and message in told["Message"], told
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400, error.response
        return
    raise AssertionError(f"not refused: {params}")


def messages(answer):
    return [event["message"] for event in answer["events"]]


def arn(group):
    return f"arn:aws:logs:{REGION}:{bed('default').account}:log-group:{group}"


@test
def groups_are_made_listed_by_pages_and_deleted():
    prefix = fresh("/paged")
    names = [f"{prefix}/{number}" for number in range(7)]
    for name in reversed(names):
        logs().create_log_group(logGroupName=name, tags={"team": "tests"})
    pages = logs().get_paginator("describe_log_groups").paginate(
        logGroupNamePrefix=prefix, PaginationConfig={"PageSize": 3})
    groups = [group for page in pages for group in page["logGroups"]]
    assert [group["logGroupName"] for group in groups] == names, groups
    assert groups[0]["arn"] == arn(names[0]) + ":*" and groups[0]["logGroupArn"] == arn(names[0])
    assert "retentionInDays" not in groups[0] and groups[0]["storedBytes"] == 0
    assert abs(groups[0]["creationTime"] - now()) < 60_000
    assert logs().list_tags_for_resource(resourceArn=arn(names[0]))["tags"] == {"team": "tests"}
    logs().tag_resource(resourceArn=arn(names[0]), tags={"more": "1"})
    logs().untag_resource(resourceArn=arn(names[0]), tagKeys=["team"])
    assert logs().list_tags_for_resource(resourceArn=arn(names[0]))["tags"] == {"more": "1"}
    found = logs().describe_log_groups(logGroupNamePattern=f"{prefix}/3"[1:])["logGroups"]
    assert [group["logGroupName"] for group in found] == [names[3]]
    refused("ResourceAlreadyExistsException", "The specified log group already exists",
            logs().create_log_group, logGroupName=names[0])
    logs().delete_log_group(logGroupName=names[0])
    refused("ResourceNotFoundException", "The specified log group does not exist.",
            logs().delete_log_group, logGroupName=names[0])


@test
def retention_is_one_of_awss_and_hides_what_is_older():
    names = new_stream()
    group = names["logGroupName"]
    put(names, ["old", "new"], start=now() - 3 * DAY + 1000, step=DAY // 2)
    shown = lambda: logs().describe_log_groups(logGroupNamePrefix=group)["logGroups"][0].get("retentionInDays")
    refused("InvalidParameterException", "retentionInDays must be one of 1, 3, 5",
            logs().put_retention_policy, logGroupName=group, retentionInDays=2)
    put(names, ["now"])
    logs().put_retention_policy(logGroupName=group, retentionInDays=1)
    assert shown() == 1
    assert messages(logs().get_log_events(**names, startFromHead=True)) == ["now"]
    assert messages(logs().filter_log_events(logGroupName=group)) == ["now"]
    rejected = put(names, ["expired", "kept"], start=now() - DAY - 1000, step=2000)["rejectedLogEventsInfo"]
    assert rejected == {"expiredLogEventEndIndex": 1}, rejected
    logs().delete_retention_policy(logGroupName=group)
    assert shown() is None
    assert messages(logs().get_log_events(**names, startFromHead=True)) == ["old", "new", "kept", "now"]


@test
def streams_are_listed_by_name_or_by_their_last_event():
    group = new_group()
    for name, at in [("b", 30), ("a", 10), ("c", 20), ("empty", None)]:
        logs().create_log_stream(logGroupName=group, logStreamName=name)
        if at is not None:
            put({"logGroupName": group, "logStreamName": name}, ["x", "y"], start=now() - at * 1000)

    def listed(**how):
        pages = logs().get_paginator("describe_log_streams").paginate(
            logGroupName=group, PaginationConfig={"PageSize": 2}, **how)
        return [stream["logStreamName"] for page in pages for stream in page["logStreams"]]

    assert listed() == ["a", "b", "c", "empty"]
    assert listed(descending=True) == ["empty", "c", "b", "a"]
    assert listed(orderBy="LastEventTime", descending=True) == ["a", "c", "b", "empty"]
    assert listed(logStreamNamePrefix="e") == ["empty"]
    first = logs().describe_log_streams(logGroupIdentifier=arn(group))["logStreams"][0]
    assert first["lastEventTimestamp"] == first["firstEventTimestamp"] + 1 and first["storedBytes"] > 0
    assert first["arn"] == f"{arn(group)}:log-stream:a" and first["uploadSequenceToken"]
    refused("InvalidParameterException", "Cannot order by LastEventTime with a logStreamNamePrefix.",
            logs().describe_log_streams, logGroupName=group, orderBy="LastEventTime", logStreamNamePrefix="a")
    logs().delete_log_stream(logGroupName=group, logStreamName="a")
    assert listed() == ["b", "c", "empty"]
    refused("ResourceNotFoundException", "The specified log stream does not exist.",
            logs().delete_log_stream, logGroupName=group, logStreamName="a")
    refused("ResourceAlreadyExistsException", "The specified log stream already exists",
            logs().create_log_stream, logGroupName=group, logStreamName="b")


@test
def a_stream_is_read_forward_and_back_and_its_end_gives_the_same_token():
    lines = [f"line {number}" for number in range(25)]
    names = new_stream(lines=lines)
    # The newest first, as without startFromHead.
    assert messages(logs().get_log_events(**names, limit=4)) == lines[-4:]
    seen, token = [], {}
    while True:
        page = logs().get_log_events(**names, limit=10, startFromHead=True, **token)
        seen += messages(page)
        if page["nextForwardToken"] == token.get("nextToken"):
            break
        token = {"nextToken": page["nextForwardToken"]}
    assert seen == lines
    put(names, ["later"], start=now() + 1000)
    page = logs().get_log_events(**names, startFromHead=True, **token)
    assert messages(page) == ["later"]
    back = logs().get_log_events(**names, limit=10, nextToken=page["nextBackwardToken"])
    assert messages(back) == lines[-10:]
    seen, token = [], {}
    while True:
        page = logs().get_log_events(**names, limit=10, **token)
        seen = messages(page) + seen
        if page["nextBackwardToken"] == token.get("nextToken"):
            break
        token = {"nextToken": page["nextBackwardToken"]}
    assert seen == [*lines, "later"]
    refused("InvalidParameterException", "The specified nextToken is invalid.",
            logs().get_log_events, **names, nextToken="f/12/s")


@test
def times_bound_what_is_read_and_events_are_in_their_order():
    names, start = new_stream(), now() - 10_000
    put(names, ["2", "4"], start=start + 2, step=2)
    put(names, ["1", "3"], start=start + 1, step=2)
    read = lambda **bounds: messages(logs().get_log_events(**names, startFromHead=True, **bounds))
    assert read() == ["1", "2", "3", "4"]
    assert read(startTime=start + 2, endTime=start + 4) == ["2", "3"]
    find = lambda **bounds: messages(logs().filter_log_events(logGroupName=names["logGroupName"], **bounds))
    assert find(startTime=start + 2, endTime=start + 4) == ["2", "3", "4"]


@test
def empty_streams_have_tokens_too():
    names = new_stream()
    page = logs().get_log_events(**names)
    assert page["events"] == [] and page["nextForwardToken"] and page["nextBackwardToken"]
    put(names, ["first"])
    assert messages(logs().get_log_events(**names, nextToken=page["nextForwardToken"])) == ["first"]


@test
def a_search_goes_over_all_streams_of_a_group():
    group, start = new_group(), now() - 10_000
    one = new_stream(group, ["a0", "a1", "a2"], start=start, step=2)
    two = new_stream(group, ["b0", "b1", "b2"], start=start + 1, step=2)
    pages = list(logs().get_paginator("filter_log_events").paginate(
        logGroupName=group, PaginationConfig={"PageSize": 2}))
    events = [event for page in pages for event in page["events"]]
    assert [event["message"] for event in events] == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert len({event["eventId"] for event in events}) == 6 and "nextToken" not in pages[-1] and len(pages) == 3
    assert {event["logStreamName"] for event in events} == {one["logStreamName"], two["logStreamName"]}
    assert messages(logs().filter_log_events(logGroupName=group, logStreamNames=[one["logStreamName"]])) == [
        "a0", "a1", "a2"]
    assert len(messages(logs().filter_log_events(logGroupName=group, logStreamNamePrefix="stream-"))) == 6
    assert messages(logs().filter_log_events(logGroupName=group, startFromHead=False, limit=2)) == ["b2", "a2"]
    refused("ResourceNotFoundException", "log stream does not exist",
            logs().filter_log_events, logGroupName=group, logStreamNames=["absent"])
    refused("InvalidParameterException", "mutually exclusive", logs().filter_log_events,
            logGroupName=group, logStreamNames=["a"], logStreamNamePrefix="a")


@test
def patterns_choose_among_events():
    group = new_stream(lines=LINES)["logGroupName"]
    for pattern, wanted in PATTERNS:
        found = messages(logs().filter_log_events(logGroupName=group, filterPattern=pattern))
        assert found == [LINES[at] for at in wanted], (pattern, found)
    refused("InvalidParameterException", "Invalid character(s) in term ':'",
            logs().filter_log_events, logGroupName=group, filterPattern="a:b")
    fields = ['{"level": "error", "status": 503}', '{"level": "info", "status": 200}', "level error 503"]
    group = new_stream(lines=fields)["logGroupName"]
    pattern = '{ $.level = "err*" && ($.status >= 500 || $.retried IS TRUE) }'
    assert messages(logs().filter_log_events(logGroupName=group, filterPattern=pattern)) == fields[:1]
    request = '10.0.0.%d - frank [10/Oct/2000:13:25:15 -0700] "GET /%s HTTP/1.0" %d 1534'
    requests = [request % of for of in ((1, "index.html", 404), (2, "index.html", 200), (3, "a.png", 410))]
    group = new_stream(lines=requests)["logGroupName"]
    for pattern, wanted in ((r"[ip = %\.[12]$%, ..., request = *.html*, status = 4*, bytes]", [0]),
                            ("[..., status = 404 || status = 410, bytes > 1000]", [0, 2]),
                            ("[ip, identity, user != frank, rest]", []),
                            ("[ip, identity, user = frank, rest]", [0, 1, 2])):
        found = messages(logs().filter_log_events(logGroupName=group, filterPattern=pattern))
        assert found == [requests[at] for at in wanted], (pattern, found)
    refused("InvalidParameterException", "more than one ellipsis",
            logs().filter_log_events, logGroupName=group, filterPattern="[..., a, ...]")


@test
def a_page_is_at_most_a_mebibyte():
    names = new_stream()
    for _ in range(3):
        put(names, ["x" * 500_000])
    page = logs().get_log_events(**names, startFromHead=True)
    assert len(page["events"]) == 2
    assert len(logs().get_log_events(**names, nextToken=page["nextForwardToken"], startFromHead=True)["events"]) == 1


@test
def batches_are_checked():
    names = new_stream()
    event = lambda at, message="x": {"timestamp": at, "message": message}
    put_events = lambda events: logs().put_log_events(**names, logEvents=events)
    for events, why in [
        ([event(now()), event(now() - 5000)], "must be in chronological order"),
        ([event(now() - DAY - 5000), event(now())], "cannot span more than 24 hours"),
        ([event(now(), "x" * 1_048_577)], "Log event too large"),
        ([event(now(), "x" * 400_000)] * 3, "Upload too large"),
        ([event(now(), "")], "at 'logEvents.1.member.message' failed to satisfy constraint"),
        ([], "at 'logEvents' failed to satisfy constraint"),
    ]:
        refused("InvalidParameterException", why, put_events, events=events)
    info = put_events([event(now() - 15 * DAY), event(now()), event(now() + DAY)])["rejectedLogEventsInfo"]
    assert info == {"tooOldLogEventEndIndex": 1, "tooNewLogEventStartIndex": 2}, info
    assert messages(logs().get_log_events(**names)) == ["x"]
    for names in ({"logGroupName": "absent", "logStreamName": "s"}, {**names, "logStreamName": "absent"}):
        refused("ResourceNotFoundException", "does not exist.", put_events, events=[event(now())])


@test
def what_breaks_the_model_is_told():
    for call, params, why in [
        (logs().create_log_group, {}, "Value null at 'logGroupName' failed to satisfy constraint"),
        (logs().create_log_group, {"logGroupName": "a b"}, "regular expression pattern: [\\.\\-_/#A-Za-z0-9]+"),
        (logs().create_log_group, {"logGroupName": "aws/x"}, "Log groups starting with AWS/ are reserved for AWS."),
        (logs().create_log_group, {"logGroupName": "x", "kmsKeyId": "k"}, "kmsKeyId"),
        (logs().describe_log_groups, {"limit": 51}, "Member must have value less than or equal to 50"),
        (logs().get_log_events, {"logGroupName": "x"}, "Value null at 'logStreamName'"),
        (logs().get_log_events, {"logStreamName": "x"}, "Value null at 'logGroupName'"),
    ]:
        refused("InvalidParameterException", why, call, **params)
    refused("SerializationException", "cannot be read", logs().describe_log_groups, limit="many")
    refused("UnknownOperationException", "StartQuery", logs().start_query, queryString="x", startTime=0, endTime=1)


@test
def policies_say_who_may_what():
    names = new_stream(lines=["x"])
    group = names["logGroupName"]
    calls = [
        ("GetLogEvents", lambda who: logs(who).get_log_events(**names)),
        ("FilterLogEvents", lambda who: logs(who).filter_log_events(logGroupName=group)),
        ("DescribeLogStreams", lambda who: logs(who).describe_log_streams(logGroupName=group)),
        ("PutRetentionPolicy", lambda who: logs(who).put_retention_policy(logGroupName=group, retentionInDays=1)),
        ("PutLogEvents", lambda who: logs(who).put_log_events(
            **names, logEvents=[{"timestamp": now(), "message": "x"}])),
    ]
    for action, call in calls:
        denied(call, action, group, user([]))
        for resource in ("*", arn(group) + ":*"):
            call(user([allow(f"logs:{action}", resource)]))
        denied(call, action, group, user([allow("logs:*", arn("another") + ":*")]))
        deny = {**allow(f"logs:{action}", arn(group) + ":*"), "Effect": "Deny"}
        denied(call, action, group, user([allow("*", "*"), deny]))
    # Groups are written without :* too.
    calls[1][1](user([allow("logs:FilterLogEvents", arn(group))]))
    tagged = new_group(tags={"team": "a"})
    mine = {"StringEquals": {"aws:ResourceTag/team": "a"}}
    who = user([{**allow("logs:DescribeLogStreams", "*"), "Condition": mine}])
    logs(who).describe_log_streams(logGroupName=tagged)
    denied(lambda who: logs(who).describe_log_streams(logGroupName=group), "DescribeLogStreams", group, who)


@test
def accounts_are_separate():
    names = new_stream(lines=["secret"])
    group = names["logGroupName"]
    refused("ResourceNotFoundException", "log group does not exist", logs("other").get_log_events, **names)
    refused("AccessDeniedException", "because no resource-based policy allows the logs:FilterLogEvents action",
            logs("other").filter_log_events, logGroupIdentifier=arn(group))
    assert logs("other").describe_log_groups(logGroupNamePrefix=group)["logGroups"] == []
    refused("ExpiredTokenException", "", logs("expired").describe_log_groups)


@test
def a_live_tail_sends_what_is_added_as_it_comes():
    names = new_stream(lines=["before"])
    group = names["logGroupName"]
    stream = logs().start_live_tail(logGroupIdentifiers=[arn(group)], logEventFilterPattern="-noise")["responseStream"]
    found, began = [], None
    for event in stream:
        if "sessionStart" in event:
            assert event["sessionStart"]["logGroupIdentifiers"] == [arn(group)], event
            began = time.monotonic()
            put(names, ["one", "noise", "two"])
            threading.Timer(0.7, lambda: new_stream(group, ["of a new stream"])).start()
            continue
        found += event["sessionUpdate"]["sessionResults"]
        if len(found) == 3 or time.monotonic() - began > 20:
            break
    stream.close()
    assert [event["message"] for event in found] == ["one", "two", "of a new stream"], found
    assert found[0]["logStreamName"] == names["logStreamName"] and found[0]["logGroupIdentifier"] == arn(group)
    refused("InvalidParameterException", "must be ARNs", logs().start_live_tail, logGroupIdentifiers=[group])
    refused("ResourceNotFoundException", "", logs().start_live_tail, logGroupIdentifiers=[arn("absent")])


def allow(action, resource):
    return {"Effect": "Allow", "Action": action, "Resource": resource}


def user(statements):
    """A user with these statements for a policy."""
    name, iam = fresh("user"), bed("default").client("iam", "root")
    bed("default").key(name)
    if statements:
        policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
        iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=policy)
    return name


def denied(call, action, group, who):
    why = f"is not authorized to perform: logs:{action} on resource: {arn(group)}:log-stream:"
    refused("AccessDeniedException", why, lambda: call(who))
