# Kubernetes asks with TERM, at which mpirun would kill its ranks. USR1 it passes on.
child=
trap '[ -z "$child" ] || kill -USR1 "$child" 2>/dev/null' TERM
mpirun --bind-to none -n @RANKS@ "$0" "$@" &
child=$!
# A trapped signal interrupts wait, so wait until mpirun has really ended.
while :; do wait "$child"; kill -0 "$child" 2>/dev/null || break; done
wait "$child"
