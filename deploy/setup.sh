#!/usr/bin/env bash
# Installs what inferq needs beside Rust, and only what is missing: a C compiler, nats-server,
# redis-server and a Vulkan driver; for tests alone, libfaketime. Runs as root or with sudo, as often as you like.
#
#   deploy/setup.sh           install what is missing
#   deploy/setup.sh --check   only say what is there; exit code 1 if something needed is missing
#   deploy/setup.sh --ci      also cargo-deny, which checks licences and sources
#
# NATS_SERVER=/path/to/nats-server uses that binary instead of looking for one.
set -euo pipefail
# The shell knows the home directory even where the environment does not.
export HOME=${HOME:-~}

readonly oldest_nats=2.9.10
readonly oldest_go=1.24
readonly cargo_deny=0.20.2

say() { printf 'setup: %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }

# True if version $1 is $2 or newer.
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

can_be_root() { [ "$(id -u)" = 0 ] || has sudo; }
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

find_nats() { command -v "${NATS_SERVER:-nats-server}" || true; }
nats_version() { "$1" --version | sed -n 's/^nats-server: v//p'; }
has_nats() {
    local binary
    binary=$(find_nats)
    [ -n "$binary" ] && at_least "$(nats_version "$binary")" "$oldest_nats"
}

# A driver announces itself to the Vulkan loader by a small JSON file in one of these folders.
vulkan_driver() {
    local file
    for file in ${VK_DRIVER_FILES:-${VK_ICD_FILENAMES:-}} /usr/share/vulkan/icd.d/*.json \
        /usr/local/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json; do
        if [ -f "$file" ]; then
            printf '%s\n' "$file"
            return
        fi
    done
}
# Apple's machines need none: there the engine speaks Metal.
has_vulkan() { [ "$(uname -s)" = Darwin ] || [ -n "$(vulkan_driver)" ]; }

# Tests that give a worker a wrong clock need it; there are none on Apple's machines.
has_faketime() {
    [ "$(uname -s)" = Darwin ] || compgen -G '/usr/lib*/*/faketime/libfaketimeMT.so.1' >/dev/null ||
        compgen -G '/usr/lib*/faketime/libfaketimeMT.so.1' >/dev/null
}

report() {
    if has cc; then say "C compiler: $(command -v cc)"; else say "C compiler: missing"; fi
    local nats
    nats=$(find_nats)
    if has_nats; then
        say "nats-server: $(nats_version "$nats") at $nats"
    elif [ -n "$nats" ]; then
        say "nats-server: $nats is older than $oldest_nats"
    else
        say "nats-server: missing"
    fi
    if has redis-server; then say "redis-server: $(command -v redis-server)"; else say "redis-server: missing"; fi
    if [ "$(uname -s)" = Darwin ]; then
        say "graphics: Metal"
    elif has_vulkan; then
        say "graphics: Vulkan, $(vulkan_driver)"
    else
        say "graphics: no Vulkan driver; everything runs on the CPU"
    fi
    if ! has_faketime; then say "libfaketime: missing; tests of wrong clocks are left out"; fi
    if $ci; then
        if has_cargo_deny; then say "cargo-deny: $cargo_deny"; else say "cargo-deny: missing"; fi
    fi
}
has_cargo_deny() { [ "$(cargo deny --version 2>/dev/null)" = "cargo-deny $cargo_deny" ]; }
complete() { has cc && has_nats && has redis-server && { ! $ci || has_cargo_deny; }; }

apt_refreshed=false
apt_refresh() {
    $apt_refreshed && return
    say "apt-get update"
    as_root apt-get update -qq || fail "apt-get update failed: mend the package sources or the network, then run this again."
    apt_refreshed=true
}

# True if apt knows package $1 in version $2 or newer.
apt_offers() {
    local candidate
    candidate=$(apt-cache policy "$1" | sed -n 's/^ *Candidate: //p')
    [ -n "$candidate" ] && [ "$candidate" != "(none)" ] && dpkg --compare-versions "$candidate" ge "$2"
}

# Debian starts what it installs, and starts it again at boot. inferq runs servers of its own, and
# a nats-server in the background would hold the port that `inferq up` wants.
apt_install() {
    local policy=/usr/sbin/policy-rc.d service
    say "apt-get install $*"
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        # shellcheck disable=SC2064 # The path is wanted as it is now.
        trap "as_root rm -f '$policy'" EXIT
    fi
    if ! apt_get install "$@"; then
        apt_refresh
        apt_get install "$@" || fail "apt-get could not install $*: install that by hand, then run this again."
    fi
    for service in nats-server redis-server; do
        case " $* " in
        *" $service "*)
            if [ -d /run/systemd/system ]; then
                say "leaving the service $service switched off; inferq starts its own"
                as_root systemctl disable --quiet "$service" || true
            fi
            ;;
        esac
    done
}
apt_get() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends "$@" >/dev/null; }

with_apt() {
    local packages=()
    has cc || packages+=(build-essential)
    has redis-server || packages+=(redis-server)
    has_vulkan || packages+=(mesa-vulkan-drivers)
    has_faketime || packages+=(libfaketime)
    if ! has_nats && [ -z "${NATS_SERVER:-}" ]; then
        if can_be_root && ! apt_offers nats-server "$oldest_nats"; then apt_refresh; fi
        if apt_offers nats-server "$oldest_nats"; then packages+=(nats-server); fi
    fi
    [ "${#packages[@]}" -gt 0 ] || return 0
    if ! can_be_root; then
        say "neither root nor sudo here; an administrator can run: apt-get install ${packages[*]}"
        return
    fi
    apt_install "${packages[@]}"
}

with_brew() {
    local formulae=()
    has redis-server || formulae+=(redis)
    if ! has_nats && [ -z "${NATS_SERVER:-}" ]; then formulae+=(nats-server); fi
    if [ "${#formulae[@]}" -gt 0 ]; then
        say "brew install ${formulae[*]}"
        brew install "${formulae[@]}" || fail "Homebrew could not install ${formulae[*]}: install that by hand, then run this again."
    fi
}

# For systems whose packages lack nats-server, or have only an old one.
nats_with_go() {
    local version bin
    has go || return 0
    version=$(go env GOVERSION | sed 's/^go//; s/[^0-9.].*//')
    at_least "$version" "$oldest_go" || return 0
    bin=$(go env GOBIN)
    bin=${bin:-$(go env GOPATH)/bin}
    say "go install github.com/nats-io/nats-server/v2@latest, into $bin"
    go install github.com/nats-io/nats-server/v2@latest || return 0
    case ":$PATH:" in
    *":$bin:"*) ;;
    *) say "add $bin to your PATH to run nats-server yourself" ;;
    esac
    PATH=$bin:$PATH
}

# Built outside the checkout, so that each machine builds it once.
install_cargo_deny() {
    local target=${XDG_CACHE_HOME:-$HOME/.cache}/inferq/tools
    say "cargo install cargo-deny $cargo_deny (some minutes)"
    CARGO_TARGET_DIR=$target cargo install --quiet --locked cargo-deny --version "$cargo_deny" ||
        fail "cargo-deny $cargo_deny did not build: install it by hand, then run this again."
}

check=false
ci=false
for option in "$@"; do
    case $option in
    --check) check=true ;;
    --ci) ci=true ;;
    *) fail "unknown option $option; there are --check and --ci" ;;
    esac
done

# Debian puts nats-server where only root looks; `go install` puts it into the last one.
PATH=$PATH:/usr/local/sbin:/usr/sbin:${GOPATH:-$HOME/go}/bin

has cargo || fail "Rust is missing: install it from https://rustup.rs, then run this again."
if [ -n "${NATS_SERVER:-}" ] && [ -z "$(find_nats)" ]; then
    fail "NATS_SERVER=$NATS_SERVER is not a program: correct or unset it."
fi
if $check; then
    report
    complete
    exit
fi

if ! complete || ! has_vulkan || ! has_faketime; then
    if has apt-get; then
        with_apt
    elif has brew; then
        with_brew
    fi
    has_nats || [ -n "${NATS_SERVER:-}" ] || nats_with_go
fi
if $ci && ! has_cargo_deny; then install_cargo_deny; fi

report
has cc || fail "Install a C compiler by hand (gcc or clang, with the name cc), then run this again."
has_nats || fail "Install nats-server $oldest_nats or newer by hand (https://github.com/nats-io/nats-server/releases), or name one with NATS_SERVER, then run this again."
has redis-server || fail "Install redis-server by hand (https://redis.io/docs/latest/operate/oss_and_stack/install), then run this again."
