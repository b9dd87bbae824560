#!/usr/bin/env bash
# The lifecycle of an image and of a MicroVM, by the AWS CLI as scripts use it: input from JSON, output by queries,
# loops that wait. What it is made of stands in the environment.
set -euo pipefail

BUILD_SECONDS=900
SECONDS_EACH=60

microvms() { "$CLIENTS/bin/aws" lambda-microvms "$@"; }
fail() { printf 'lifecycle.sh: %s\n' "$*" >&2; exit 1; }
same() { [[ $1 == "$2" ]] || fail "expected '$2', got '$1'"; }

# until_true WHAT SECONDS COMMAND...
until_true() {
    local what=$1 deadline=$((SECONDS + $2))
    shift 2
    until "$@"; do
        ((SECONDS < deadline)) || fail "$what: not in time"
        sleep 0.1
    done
}

image_state() { microvms get-microvm-image --image-identifier "$1" --query state --output text; }
microvm_state() { microvms get-microvm --microvm-identifier "$1" --query state --output text; }
image_is() { [[ $(image_state "$1") == "$2" ]]; }
microvm_is() { [[ $(microvm_state "$1") == "$2" ]]; }
image_settled() { [[ $(image_state "$1") != *ING ]]; }
image_gone() { ! microvms get-microvm-image --image-identifier "$1" >/dev/null 2>"$ERRORS" && grep -q ResourceNotFound "$ERRORS"; }

ERRORS=$(mktemp)
trap 'rm -f "$ERRORS"' EXIT

create() {
    local input
    input=$(cat <<END
{
    "name": "$IMAGE_NAME",
    "baseImageArn": "$BASE_IMAGE",
    "buildRoleArn": "$BUILD_ROLE",
    "codeArtifact": {"uri": "$ARTIFACT"},
    "resources": [{"minimumMemoryInMiB": 512}],
    "hooks": {"port": 9000, "microvmImageHooks": {"ready": "ENABLED", "readyTimeoutInSeconds": 300, "validate": "DISABLED"}},
    "tags": {"kept": "yes"},
    "clientToken": "$CREATE_TOKEN"
}
END
)
    image=$(microvms create-microvm-image --cli-input-json "$input" --query imageArn --output text)
    until_true "the build" $BUILD_SECONDS image_settled "$image"
    image_is "$image" CREATED || fail "not built"
}

versions() {
    same "$(microvms list-microvm-image-versions --image-identifier "$image" --no-paginate \
        --query 'items[].[imageVersion,state,status]' --output text)" $'1.0\tSUCCESSFUL\tACTIVE'
    same "$(microvms get-microvm-image-version --image-identifier "$image" --image-version 1.0 \
        --query 'resources[0].minimumMemoryInMiB' --output text)" 512
    local build
    build=$(microvms list-microvm-image-builds --image-identifier "$image" --image-version 1.0 --max-items 1 \
        --query 'items[0].buildId' --output text)
    same "$(microvms get-microvm-image-build --image-identifier "$image" --image-version 1.0 --build-id "$build" \
        --query buildState --output text)" SUCCESSFUL
}

run() {
    local token input
    token=$(cat /proc/sys/kernel/random/uuid)
    input="{\"imageIdentifier\": \"$image\", \"maximumDurationInSeconds\": 600, \"clientToken\": \"$token\"}"
    read -r microvm endpoint < <(microvms run-microvm --cli-input-json "$input" \
        --query '[microvmId,endpoint]' --output text)
    same "$(microvms run-microvm --cli-input-json "$input" --query microvmId --output text)" "$microvm"
    until_true "the launch" $SECONDS_EACH microvm_is "$microvm" RUNNING
    # The first page alone, then the whole by pages of one.
    local listed
    listed=$(microvms list-microvms --image-identifier "$image" --no-paginate --query 'items[].microvmId' --output text)
    [[ $listed == *"$microvm"* ]] || fail "not listed"
    listed=$(microvms list-microvms --image-identifier "$image" --page-size 1 --query 'items[].microvmId' --output text)
    [[ $listed == *"$microvm"* ]] || fail "not listed by pages"
}

request() {
    local token
    token=$(microvms create-microvm-auth-token --microvm-identifier "$microvm" --expiration-in-minutes 5 \
        --allowed-ports '[{"port":8080}]' --query 'authToken."X-aws-proxy-auth"' --output text)
    curl --silent --show-error --fail --noproxy '*' --header "X-aws-proxy-auth: $token" "https://$endpoint/" >/dev/null
}

sleep_and_wake() {
    microvms suspend-microvm --microvm-identifier "$microvm"
    until_true "the sleep" $SECONDS_EACH microvm_is "$microvm" SUSPENDED
    microvms resume-microvm --microvm-identifier "$microvm"
    until_true "the wake" $SECONDS_EACH microvm_is "$microvm" RUNNING
}

switch_off_and_on() {
    local which=(--image-identifier "$image" --image-version 1.0)
    same "$(microvms update-microvm-image-version "${which[@]}" --status INACTIVE --query status --output text)" INACTIVE
    ! microvms run-microvm --image-identifier "$image" 2>"$ERRORS" || fail "an inactive version runs"
    grep -q ResourceNotFoundException "$ERRORS" || fail "refused otherwise: $(<"$ERRORS")"
    same "$(microvms update-microvm-image-version "${which[@]}" --status ACTIVE --query status --output text)" ACTIVE
}

tag() {
    microvms tag-resource --resource "$image" --tags client=cli
    same "$(microvms list-tags --resource "$image" --query 'Tags.[kept,client]' --output text)" $'yes\tcli'
    microvms untag-resource --resource "$image" --tag-keys client
    same "$(microvms get-microvm-image --image-identifier "$image" --query 'tags.keys(@)' --output text)" kept
}

terminate() {
    microvms terminate-microvm --microvm-identifier "$microvm"
    until_true "the end" $SECONDS_EACH microvm_is "$microvm" TERMINATED
}

fail_and_delete() {
    local doomed reason
    doomed=$(microvms create-microvm-image --name "$DOOMED_NAME" --base-image-arn "$BASE_IMAGE" \
        --build-role-arn "$BUILD_ROLE" --code-artifact uri=s3://artifacts/there-is-no-such-key.zip \
        --query imageArn --output text)
    until_true "the failure" $SECONDS_EACH image_is "$doomed" CREATE_FAILED
    reason=$(microvms list-microvm-image-builds --image-identifier "$doomed" --image-version 1.0 \
        --query 'items[0].stateReason' --output text)
    [[ $reason == *there-is-no-such-key.zip* ]] || fail "another reason: $reason"
    same "$(microvms delete-microvm-image --image-identifier "$doomed" --query state --output text)" DELETING
    until_true "the deletion" $SECONDS_EACH image_gone "$doomed"
}

create
versions
run
request
sleep_and_wake
request
switch_off_and_on
tag
terminate
fail_and_delete
