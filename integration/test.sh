#!/usr/bin/env bash
# Runs the tests: all of them with one nats-server, then those of tests/ folders, which start one,
# with the other that we support. Faults that only some machines can bring about follow each. Ends
# with what ran with which.
#
#   integration/test.sh [CARGO FLAGS..]                  all tests
#   integration/test.sh --test faults [CARGO FLAGS..]    those of one file
set -uo pipefail
# The shell knows the home directory even where the environment does not.
export HOME=${HOME:-~}
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

tools=${XDG_CACHE_HOME:-$HOME/.cache}/inferq/tools
export PATH=$PATH:$tools/bin
first=$(command -v "${NATS_SERVER:-nats-server}") || first=
newest=$tools/nats-server-newest/nats-server
summary=
missing=
failed=0
flags=()
one_file=false
previous=
for argument in "$@"; do
    if [ "$argument" = --test ]; then one_file=true; elif [ "$previous" != --test ]; then flags+=("$argument"); fi
    previous=$argument
done
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT

version() { "$1" --version | sed 's/.*v//'; }

# run TITLE SERVER CARGO ARGUMENTS..
run() {
    local title=$1 server=$2
    shift 2
    title="nats-server $(version "$server")$title"
    printf '\n== tests with %s\n' "$title"
    NATS_SERVER=$server cargo test --workspace --no-fail-fast "$@" 2>&1 | tee "$log" || failed=1
    summary+=$(awk -v title="$title" '/^test result: / { passed += $4; failed += $6; ignored += $8 }
        END { printf "%s: %d passed; %d failed; %d ignored", title, passed, failed, ignored }' "$log")$'\n'
}

can_mount() {
    local folder
    folder=$(mktemp -d) || return
    mount -t tmpfs inferq "$folder" 2>/dev/null && umount "$folder"
    local mounted=$?
    rmdir "$folder"
    return "$mounted"
}
has_faketime() { compgen -G '/usr/lib*/*/faketime/libfaketimeMT.so.1' || compgen -G '/usr/lib*/faketime/libfaketimeMT.so.1'; } >/dev/null

# Modules of faults whose tests are ignored unless they are asked for.
special=()
if can_mount; then special+=(disk::); else missing+="the full disk: not run, only root may mount one"$'\n'; fi
if has_faketime; then special+=(clock::); else missing+="wrong clocks of workers: not run, there is no libfaketime"$'\n'; fi

# all SERVER CARGO ARGUMENTS..
all() {
    run "" "$@"
    [ "${#special[@]}" = 0 ] || run ", faults that need root or libfaketime" "$1" ${flags[@]+"${flags[@]}"} --test faults -- --ignored "${special[@]}"
}

if [ -z "$first" ]; then
    echo "there is no nats-server: deploy/setup.sh installs it" >&2
    exit 1
fi
all "$first" "$@"
if [ -n "${NATS_SERVER:-}" ]; then
    summary+="NATS_SERVER names the only server that was asked for"$'\n'
elif [ ! -x "$newest" ]; then
    summary+="the newest nats-server: not run, $(cat integration/clients/.missing/nats-server 2>/dev/null || echo "integration/clients/setup.sh has not made it")"$'\n'
elif [ "$(version "$newest")" != "$(version "$first")" ]; then
    if ! $one_file; then set -- "$@" --test '*'; fi
    all "$newest" "$@"
fi
printf '\n%s' "$summary$missing"
exit "$failed"
