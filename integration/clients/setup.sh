#!/usr/bin/env bash
# Prepares what the tests with other clients need, as far as this machine has the languages:
#
#   python/.venv               with nats-py and cbor2
#   javascript/node_modules    with nats.js and cbor-x
#   go/bin                     the Go programs, built
#   <cache>/tools/bin/nats     the command line of NATS
#   <cache>/tools/nats-server-<version>/nats-server    the newest server that we support
#
# What cannot be had is written, with the reason, to .missing/<name>; its tests then count as
# ignored. Does nothing the second time.
set -uo pipefail
# The shell knows the home directory even where the environment does not.
export HOME=${HOME:-~}
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1

readonly newest_nats=2.15.2
readonly nats_cli=0.5.1
# From this one on, Go fetches a newer toolchain by itself where a module asks for it.
readonly oldest_go=1.21
readonly tools=${XDG_CACHE_HOME:-$HOME/.cache}/inferq/tools

has() { command -v "$1" >/dev/null 2>&1; }
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT

# prepare NAME COMMAND..: runs COMMAND, which prints why it could not, unless it is done already.
prepare() {
    local name=$1
    shift
    if "$@" >"$log" 2>&1; then
        rm -f ".missing/$name"
        return
    fi
    mkdir -p .missing
    tail -n 1 "$log" >".missing/$name"
    printf 'setup: tests of %s will be ignored: %s\n' "$name" "$(cat ".missing/$name")"
}

# True if $1 was made from the file $2 as it is now.
is_current() { cmp -s "$1/.made-from" "$2"; }

python() {
    is_current python/.venv python/requirements.txt && return
    has python3 || { echo "python3 is not installed" && return 1; }
    rm -rf python/.venv
    python3 -m venv python/.venv || { echo "python3 -m venv fails; Debian's package is python3-venv" && return 1; }
    python/.venv/bin/pip install --quiet --disable-pip-version-check -r python/requirements.txt ||
        { echo "pip could not install $(xargs <python/requirements.txt)" && return 1; }
    cp python/requirements.txt python/.venv/.made-from
}

javascript() {
    is_current javascript/node_modules javascript/package.json && return
    { has node && has npm; } || { echo "node or npm is not installed" && return 1; }
    # The optional parts are native code for speed alone.
    (cd javascript && npm install --no-package-lock --omit=optional --ignore-scripts --no-audit --no-fund) ||
        { echo "npm could not install the packages of package.json" && return 1; }
    cp javascript/package.json javascript/node_modules/.made-from
}

has_go() {
    has go || { echo "go is not installed" && return 1; }
    local version
    version=$(go env GOVERSION | sed 's/^go//; s/[^0-9.].*//')
    [ "$(printf '%s\n%s\n' "$version" "$oldest_go" | sort -V | head -n 1)" = "$oldest_go" ] ||
        { echo "go is $version, older than $oldest_go" && return 1; }
}

go_programs() {
    has_go || return 1
    (cd go && go build -o bin/ ./...) || { echo "go could not build the programs" && return 1; }
}

# go_tool BINARY FOLDER MODULE@VERSION
go_tool() {
    [ ! -x "$2/$1" ] || return 0
    has_go || return 1
    mkdir -p "$2"
    GOBIN=$2 go install "$3" || { echo "go could not install $3" && return 1; }
}

prepare python python
prepare javascript javascript
prepare go go_programs
# The name of the folder of `nats` has the version, so that a new one is built; the link has not.
cli=$tools/nats-cli-$nats_cli
prepare nats go_tool nats "$cli" "github.com/nats-io/natscli/nats@v$nats_cli"
mkdir -p "$tools/bin" && ln -sf "$cli/nats" "$tools/bin/nats"
prepare nats-server go_tool nats-server "$tools/nats-server-$newest_nats" \
    "github.com/nats-io/nats-server/v2@v$newest_nats"
# `make test` runs those tests once more that start a server.
ln -sfn "$tools/nats-server-$newest_nats" "$tools/nats-server-newest"
