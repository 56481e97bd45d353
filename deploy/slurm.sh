#!/bin/bash
#SBATCH --job-name=condensery
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@180
#SBATCH --requeue
#SBATCH --output=condensery-%j.log
#
# A search on a Slurm cluster: Ray's head and the controller on the first node, workers on all. See docs/cluster.md.
#
#     sbatch deploy/slurm.sh study.toml
#
# From a folder that all nodes share, with Condensery in its .venv (or CONDENSERY_VENV). The study file says:
# engine.kind = "ray", engine.address = "auto". The database is where CONDENSERY_STORAGE or the study file says. A SQLite
# file will do when it is on the first node's own disk or in a file system with working locks: only the controller opens
# it. A job that is requeued, or submitted again, goes on.
set -euo pipefail

study="${1:?usage: sbatch slurm.sh STUDY.toml}"
# shellcheck disable=SC1091
. "${CONDENSERY_VENV:-.venv}/bin/activate"

port="${RAY_PORT:-$((20000 + SLURM_JOB_ID % 10000))}" # another job may share the node's network
cores="${SLURM_CPUS_ON_NODE:?not within a Slurm job}"

# Ray runs whatever it is sent: no one without this job's token may talk to it.
RAY_AUTH_TOKEN_PATH="$(mktemp "$PWD/.ray-token-$SLURM_JOB_ID.XXXXXX")" # mktemp: readable by this user alone
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$RAY_AUTH_TOKEN_PATH"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head_node="${nodes[0]}"
read -r address _ < <(hostname -I) # this script runs on the first node

# One core of the head's node stays free: the controller measures latencies there.
srun --nodes=1 --ntasks=1 --nodelist="$head_node" --overlap \
    ray start --head --node-ip-address="$address" --port="$port" --num-cpus="$((cores - 1))" \
    --include-dashboard=false --disable-usage-stats --block &

for try in {1..60}; do
    ray health-check --address="$address:$port" 2>/dev/null && break
    [ "$try" -lt 60 ] || { echo "Ray's head didn't start on $head_node" >&2; exit 1; }
    sleep 2
done

if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    srun --nodes="$((SLURM_JOB_NUM_NODES - 1))" --ntasks="$((SLURM_JOB_NUM_NODES - 1))" --exclude="$head_node" --overlap \
        ray start --address="$address:$port" --disable-usage-stats --block &
fi

# Three minutes before the time is over Slurm sends TERM to this shell: the search then stops cleanly.
time_is_over=0 status=0 controller=
trap 'time_is_over=1; [ -z "$controller" ] || kill -TERM "$controller" 2>/dev/null || true' TERM
RAY_ADDRESS="$address:$port" condensery launch "$study" --resume &
controller=$!
[ "$time_is_over" -eq 0 ] || kill -TERM "$controller" 2>/dev/null || true # the signal came while the search was starting
wait "$controller" || status=$?
if [ "$time_is_over" -eq 1 ]; then # the signal interrupted the wait
    status=0
    wait "$controller" || status=$?
fi
if [ "$time_is_over" -eq 1 ] && { [ "$status" -eq 130 ] || [ "$status" -eq 143 ]; }; then # 143: before it had begun
    scontrol requeue "$SLURM_JOB_ID" || true # stopped, not done: the job continues when there is room again
fi
exit "$status"
