# shellcheck shell=bash
# Sourced by local.sh and chain.sh: run_job starts LAUNCH ... pfdhpc run INPUT, and starts it again
# where a rank was lost. When a rank dies (out of memory, a failed node, kill -9) the launcher ends the others:
# what was committed is safe, and the next start goes on from there.
# Sets run (directory), code (exit code), state, before and after (progress), and asked: USR1 or TERM (or Ctrl-C)
# where a signal came to this shell, empty where none did.

# Starts at most; a start that got nowhere is the last one too.
MAX_STARTS=${MAX_STARTS:-10}

# A key of RUN/status.json; "none" before the first start.
status() {
    python -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' \
        "$run/status.json" "$1" 2>/dev/null || echo none
}

# What a signal to this shell does; the first one is kept in asked.
ask() {
    asked=${asked:-$1}
    kill -USR1 "$child" 2>/dev/null
}

# One start. A signal to this shell asks the run to stop cleanly, and is waited for.
start() {
    "${LAUNCH[@]}" python -m mpi4py -m pfdhpc run "$INPUT" </dev/null &
    child=$!
    trap 'ask TERM' INT TERM
    trap 'ask USR1' USR1
    wait "$child"
    code=$?
    while kill -0 "$child" 2>/dev/null; do
        wait "$child"
        code=$?
    done
    state=$(status state) after=$(status progress)
}

# A lost rank gives launchers exit codes of their own (9, 137, 143), and the run tells no end in status.json, or
# that srun, as it ended the other ranks, sent it a SIGTERM which this script knows nothing of.
crashed() {
    [[ $code -gt 3 && -z $asked ]] || return 1
    [[ $state == running || $state == none || "$state $(status reason)" == "incomplete received SIGTERM" ]]
}

run_job() {
    local starts=1 last
    run=$(python -m pfdhpc where "$INPUT") || exit 2
    before=$(status progress) last=$before asked=""
    start
    while crashed; do
        echo "pfdhpc: a rank was lost (exit code $code), progress $last -> $after" >&2
        if [[ $after == "$last" ]] || ((starts >= MAX_STARTS)); then
            echo "pfdhpc: not started again: ${starts} starts, the last one got to $after" >&2
            return
        fi
        last=$after starts=$((starts + 1))
        echo "pfdhpc: start $starts of at most $MAX_STARTS in this allocation" >&2
        start
    done
}
