# Sourced by the other scripts: brings a bare Debian or Ubuntu machine to where they can run.
# Does only what is missing, says what it does, and names what to install where it may not.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
export PYTHONUNBUFFERED=1

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "slipway: $*"
    exit 1
}

# need COMMAND PACKAGE...: install the packages unless COMMAND is on the path.
need() {
    local command=$1
    shift
    command -v "$command" >/dev/null || apt_install "$@"
}

apt_install() {
    local apt=(apt-get) log
    command -v apt-get >/dev/null ||
        fail "$* is missing and there is no apt-get here: install it with your system's package manager, then start again."
    if [ "$(id -u)" != 0 ]; then
        { command -v sudo >/dev/null && sudo -n true 2>/dev/null; } ||
            fail "$* is missing and this user may not install it: run 'sudo apt-get install $*', then start again."
        apt=(sudo env DEBIAN_FRONTEND=noninteractive apt-get)
    fi
    say "Installing $* ..."
    log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive
    # an old package list is the usual reason for a failure, so it is renewed before the second try
    if ! "${apt[@]}" install -y -q --no-install-recommends "$@" >"$log" 2>&1 &&
        ! { "${apt[@]}" update -q && "${apt[@]}" install -y -q --no-install-recommends "$@"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        fail "apt-get could not install $*; its last words are above."
    fi
    rm -f "$log"
}

find_python() {
    local candidate
    for candidate in python3.13 python3.12 python3.11 python3; do
        if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# make_venv REQUIREMENTS: .venv holds exactly these; nothing is done when it already does.
make_venv() {
    local python mark
    if [ ! -x .venv/bin/python ]; then
        python=$(find_python) || fail "Python 3.11 or newer is needed and was not found."
        say "Making the virtual environment .venv with $("$python" --version) ..."
        rm -rf .venv
        if ! "$python" -m venv .venv >/dev/null 2>&1; then
            # Debian keeps ensurepip in a package of its own
            rm -rf .venv
            apt_install "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
            "$python" -m venv .venv || fail "the virtual environment could not be made with $python."
        fi
    fi
    mark=$(cat requirements*.txt | sha256sum | cut -c1-32)
    [ "$(cat ".venv/.holds-$1" 2>/dev/null)" = "$mark" ] && return
    say "Installing $1 ..."
    local uv
    uv=$(grep -h '^uv==' requirements.txt)
    # uv is some ten times faster; pip, which reads a company's own configuration, is the way round it
    if ! { .venv/bin/python -m pip install -q --disable-pip-version-check "$uv" &&
        .venv/bin/uv pip install -q --python .venv/bin/python -r "$1"; } 2>/dev/null; then
        say "uv could not install them; trying pip ..."
        .venv/bin/python -m pip install -q --disable-pip-version-check -r "$1" ||
            fail "the packages of $1 could not be installed; see above."
    fi
    printf '%s' "$mark" >".venv/.holds-$1"
}
