#!/usr/bin/env bash
# Runs the tests: all of them with one nats-server, then those of tests/ folders, which start one,
# with the other that we support. Ends with what ran with which.
#
#   integration/test.sh [CARGO FLAGS..]
set -uo pipefail
# The shell knows the home directory even where the environment does not.
export HOME=${HOME:-~}
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

tools=${XDG_CACHE_HOME:-$HOME/.cache}/inferq/tools
export PATH=$PATH:$tools/bin
first=$(command -v "${NATS_SERVER:-nats-server}") || first=
newest=$tools/nats-server-newest/nats-server
summary=
failed=0
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT

version() { "$1" --version | sed 's/.*v//'; }

# run SERVER CARGO ARGUMENTS..
run() {
    local server=$1
    shift
    printf '\n== tests with nats-server %s\n' "$(version "$server")"
    NATS_SERVER=$server cargo test --workspace --no-fail-fast "$@" 2>&1 | tee "$log" || failed=1
    summary+=$(awk -v server="$(version "$server")" '/^test result: / { passed += $4; failed += $6; ignored += $8 }
        END { printf "nats-server %s: %d passed; %d failed; %d ignored", server, passed, failed, ignored }' "$log")$'\n'
}

if [ -z "$first" ]; then
    echo "there is no nats-server: deploy/setup.sh installs it" >&2
    exit 1
fi
run "$first" "$@"
if [ -n "${NATS_SERVER:-}" ]; then
    summary+="NATS_SERVER names the only server that was asked for"$'\n'
elif [ ! -x "$newest" ]; then
    summary+="the newest nats-server: not run, $(cat integration/clients/.missing/nats-server 2>/dev/null || echo "integration/clients/setup.sh has not made it")"$'\n'
elif [ "$(version "$newest")" != "$(version "$first")" ]; then
    run "$newest" "$@" --test '*'
fi
printf '\n%s' "$summary"
exit "$failed"
