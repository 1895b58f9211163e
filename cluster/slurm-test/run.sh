#!/usr/bin/env bash
# Starts a real Slurm on this machine and runs the job templates in it: submit, signal, requeue,
# resume, finish. The final weights must equal those of an undisturbed run. Needs root; installs
# Slurm and munge if they are missing.
#
#   cluster/slurm-test/run.sh [PROGRAM]     (default: target/release/docre-pretrain)
set -euo pipefail
cd "$(dirname "$0")/../.."
program=$(realpath "${1:-target/release/docre-pretrain}")
here=cluster/slurm-test
say() { printf 'slurm-test: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
[ "$(id -u)" -eq 0 ] || die "needs root, for slurmd"
[ -x "$program" ] || die "no program at $program; run make build"
missing=
for tool in slurmctld slurmd munged srun; do command -v $tool >/dev/null || missing=1; done
if [ -n "$missing" ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge >/dev/null
fi

dir=$(mktemp -d /tmp/slurm-test.XXXXXX)
export SLURM_CONF=$dir/slurm.conf
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
mkdir -p "$dir"/{state,spool}
chmod 755 "$dir"
sed "s|@DIR@|$dir|g; s|@HOST@|$(hostname -s)|g; s|@CPUS@|8|g" $here/slurm.conf >"$SLURM_CONF"
stop() {
    timeout 10 scancel -u root 2>/dev/null || true
    for daemon in slurmd slurmctld munged; do
        [ ! -f "$dir/$daemon.pid" ] || kill "$(cat "$dir/$daemon.pid")" 2>/dev/null || true
    done
    if [ -n "${KEEP:-}" ]; then say "left $dir"; else sleep 1; rm -rf "$dir"; fi
}
trap stop EXIT

(umask 077 && dd if=/dev/urandom of="$dir/munge.key" bs=1 count=1024 status=none)
munged --force --key-file="$dir/munge.key" --socket="$dir/munge.sock" --pid-file="$dir/munged.pid" --log-file="$dir/munged.log" --seed-file="$dir/munge.seed"
slurmctld
slurmd
until_true() { # until_true SECONDS COMMAND…
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || { show; die "waited too long for: $*"; }
        sleep 0.3
    done
}
show() { squeue >&2 || true; scontrol show jobs >&2 || true; tail -n 20 "$dir"/*.log >&2 || true; }
up() { sinfo -h -o %T | grep -qE 'idle|mixed|alloc'; }
until_true 30 up
say "Slurm $(sinfo --version) is up"

state() { scontrol show job "$1" -o 2>/dev/null | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p' | head -n 1; }
is() { [[ "$(state "$1")" == "$2" ]]; }
steps() { cat "$1/metrics.jsonl" 2>/dev/null | grep -c "\"stage\":\"$2\"" || true; }
has_steps() { [ "$(steps "$1" "$2")" -ge "$3" ]; }
is_gone() { ! pgrep -f "slurmstepd: \[$1[].]" >/dev/null; }
again() { # Slurm holds a requeued job back for two minutes, in which what is left of its last start goes away.
    until_true 60 is_gone "$1"
    # slurmd refuses a start whose credential is not younger, in whole seconds, than the end of the last one ("already killed").
    sleep 3
    scontrol update JobId="$1" StartTime=now
}
hashes() { # the weights and moments at the end of each stage
    for stage in "$1"/checkpoints/*/; do
        for file in model heads optimizer; do sha256sum <"$(ls -d "$stage"step-* | tail -n 1)/$file.safetensors"; done
    done
}
submit() { "$program" submit "$dir/recipe.toml" --program "$program" --tasks 2 --time 00:20:00 --log "$dir/%x-%A.log" "$@"; }

cp $here/recipe.toml "$dir/recipe.toml"
cd "$dir"

say "the run that nobody disturbs"
mpirun -n 2 "$program" run recipe.toml --run-dir calm >"$dir/calm.log" 2>&1 || { tail "$dir/calm.log"; die "the undisturbed run failed"; }

say "srun without a process manager: the ranks meet over c10d"
srun --mpi=none -n 2 "$program" run recipe.toml --run-dir without-mpi >"$dir/without-mpi.log" 2>&1 ||
    { tail "$dir/without-mpi.log"; die "the run without MPI failed"; }
[ "$(hashes calm)" = "$(hashes without-mpi)" ] || die "the weights without MPI are not those with it"

say "single-node: USR1 in pre-training, requeue, resume, finish"
job=$(submit --run-dir "$dir/single" | grep -o '[0-9]*$')
until_true 120 has_steps single pretrain 5
timeout 10 scancel --batch --signal=USR1 "$job"
until_true 60 is "$job" PENDING
[ "$(scontrol show job "$job" -o | grep -o 'Restarts=[0-9]*')" = Restarts=1 ] || die "the job was not requeued"
ls -d single/checkpoints/pretrain/step-* >/dev/null || die "no checkpoint was written"
before=$(steps single pretrain)
[ "$before" -lt 60 ] || die "pre-training was over before the signal came"
again "$job"
until_true 180 is "$job" COMPLETED
[ "$(hashes calm)" = "$(hashes single)" ] || die "the weights after a requeue are not those of the undisturbed run"
grep -q "start 2" "$dir"/*-"$job".log || die "the log was not appended to"
grep -q "going on at step" "$dir"/*-"$job".log || die "the second start did not resume"
say "equal weights after a requeue at step $before"

say "single-node: a rank is killed, the job comes back"
job=$(submit --run-dir "$dir/killed" | grep -o '[0-9]*$')
until_true 120 has_steps killed pretrain 15
rank=$("$program" autopsy killed --events 0 | sed -n 's/^rank 1 on .* (process \([0-9]*\)).*/\1/p')
kill -KILL "$rank"
until_true 60 is "$job" PENDING
grep -q "rank 1 on .* was killed by signal 9" "$dir"/*-"$job".log || die "nobody said which rank was killed"
again "$job"
until_true 180 is "$job" COMPLETED
[ "$(hashes calm)" = "$(hashes killed)" ] || die "the weights after a kill are not those of the undisturbed run"

say "finetune-after-pretrain: waits for its job"
first=$(submit --run-dir "$dir/chain" | grep -o '[0-9]*$')
second=$(submit --run-dir "$dir/chain" --template finetune-after-pretrain --after "$first" --system atlop --set finetune.steps=2 | grep -o '[0-9]*$')
is "$second" PENDING || die "the second job did not wait"
until_true 180 is "$first" COMPLETED
until_true 120 is "$second" COMPLETED
ls -d chain-finetune-atlop/checkpoints/finetune/step-*/MANIFEST.json >/dev/null || die "fine-tuning left no checkpoint"

say "array-of-seeds: two seeds"
job=$(submit --run-dir "$dir/seeds" --template array-of-seeds --seeds 1-2 | grep -o '[0-9]*$')
both() { [ -f seeds-seed-1/scores.json ] && [ -f seeds-seed-2/scores.json ]; }
until_true 240 both
[ "$(hashes seeds-seed-1)" != "$(hashes seeds-seed-2)" ] || die "two seeds gave the same weights"

say "multi-node on one node"
job=$(submit --run-dir "$dir/multi" --template multi-node --nodes 1 | grep -o '[0-9]*$')
until_true 180 is "$job" COMPLETED
[ "$(hashes calm)" = "$(hashes multi)" ] || die "the weights differ from the undisturbed run"
say "all well"
