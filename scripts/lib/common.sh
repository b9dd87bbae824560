# Steps, products and messages: what every other part of set-up is written with.

die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# Shown at once, even from inside a step whose output goes to its log (fd 3 is the terminal there).
warn() { { printf '  warning: %s\n' "$*" >&3; } 2>/dev/null || printf '  warning: %s\n' "$*" >&2; }

require_root() {
    [[ $EUID -eq 0 ]] || die "must run as root, to install packages and make file systems"
}

# step TITLE COMMAND...: runs it with its output in a log, prints one timed line, shows the log's end on failure.
step() {
    local title=$1 began=${EPOCHREALTIME/./} status=0
    local log=$logs/${title//[^a-z0-9]/-}.log
    shift
    # A background job, because errexit would not hold inside a command whose status is tested.
    (set -euo pipefail; exec 3>&2 >"$log" 2>&1 </dev/null; "$@") &
    wait $! || status=$?
    if [[ $status -ne 0 ]]; then
        tail -n 30 "$log" >&2
        die "\"$title\" failed with status $status; the whole log is $log; run set-up again once it is mended"
    fi
    report "$title" $((${EPOCHREALTIME/./} - began))
}

report() { printf '%-32s %6d.%01d s\n' "$1" $(($2 / 1000000)) $(($2 / 100000 % 10)); }

# product NAME TITLE COMMAND RECIPE...: runs COMMAND (given the path to write to as its last word) and renames the
# result into place, unless NAME was already made by the same recipe files and versions.
product() {
    local name=$1 title=$2 command=$3
    shift 3
    local want stamp=$assets/.made/$name
    want=$(recipe_sum "$command" "$@")
    if [[ -e $assets/$name && -f $stamp && $(<"$stamp") == "$want" ]]; then
        printf '%-32s     kept\n' "$title"
        return
    fi
    # shellcheck disable=SC2086 # the command may carry an argument
    step "$title" $command "$work/$name"
    rm -f "$stamp"
    publish "$name"
    mkdir -p "$assets/.made"
    printf '%s\n' "$want" >"$stamp.tmp"
    mv "$stamp.tmp" "$stamp"
}

# Renames a finished product into place. A directory cannot replace one that is not empty, so the old one steps aside.
publish() {
    sync "$work/$1"
    if [[ -d $assets/$1 ]]; then
        mv "$assets/$1" "$work/$1.old"
    fi
    mv "$work/$1" "$assets/$1"
}

recipe_sum() {
    local command=$1 part
    shift
    {
        printf '%s\n' "$command"
        cat "$here/versions.env"
        for part in "$@"; do cat "$here/lib/$part.sh"; done
        extra_certificates | xargs -r cat
    } | sha256sum | cut -d' ' -f1
}

# The certificates that an operator added to this host: whatever the host must trust to reach the network, build VMs
# must trust too.
extra_certificates() {
    find /usr/local/share/ca-certificates -name '*.crt' 2>/dev/null | sort
}

# A Debian archive that this host is already set up to use: archive_uri DISTRIBUTION
archive_uri() {
    local uri
    uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $1" | sort -u | head -n 1)
    printf '%s' "${uri%/}"
}
