# Sourced by each program's script: its options, its scratch folder, the launcher.
# A script prints `operations N`, then what the program prints; the same under every allocator.
# $BENCH_LAUNCH starts the program under $BENCH_PRELOAD and writes what it used to $BENCH_RESULT.
set -eu

usage() {
    echo "Usage: $(basename "$0") [--scale N] [--work DIR]"
    echo "$purpose"
    echo "  --scale N   amount of work, 1 to 1000 (default 1)"
    echo "  --work DIR  scratch folder for the input it makes (default: a new one, removed at the end)"
    exit 0
}
refuse() { echo "$(basename "$0"): $* (see --help)" >&2; exit 2; }
have() { command -v "$1" >/dev/null || { echo "$1 is not installed" >&2; exit 77; }; }

scale=1 work=
while [ $# -gt 0 ]; do
    case $1 in
        --help) usage ;;
        --scale | --work)
            [ $# -ge 2 ] || refuse "$1 needs a value"
            [ "$1" = --scale ] && scale=$2 || work=$2
            shift 2 ;;
        *) refuse "unknown option '$1'" ;;
    esac
done
case $scale in '' | *[!0-9]*) refuse "bad scale '$scale'" ;; esac
[ "$scale" -ge 1 ] && [ "$scale" -le 1000 ] || refuse "bad scale '$scale'"
if [ -z "$work" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi
mkdir -p "$work"

# measure COMMAND... - under the launcher, or plainly when a person runs the script.
measure() {
    if [ -n "${BENCH_LAUNCH:-}" ]; then
        "$BENCH_LAUNCH" -- "$@"
    else
        "$@"
    fi
}
