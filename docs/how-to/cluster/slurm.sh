#!/bin/bash
# A search on the nodes of a Slurm job: sbatch slurm.sh; after a time limit, submit it again with
# `--resume` behind `igq search`. Slurm ends it with SIGTERM: the study is whole, the exit code 143.
#
# Edit: nodes, time, GPUs, the environment, the command. The folder of the study must be shared.
#SBATCH --job-name=igq
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@60
set -euo pipefail

. /shared/igq/bin/activate
export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="$HOME/.ray/auth_token" # `ray get-auth-token --generate` makes it, once

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head="${nodes[0]}"
port=$((20000 + SLURM_JOB_ID % 20000)) # jobs of others may share the machine
address="$(srun --nodes=1 --ntasks=1 -w "$head" hostname -I | awk '{print $1}'):$port"

srun --nodes=1 --ntasks=1 --overlap -w "$head" \
    ray start --head --block --port="$port" --node-name="$head" \
    --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" &
until ray health-check --address "$address" >/dev/null 2>&1; do sleep 2; done

for node in "${nodes[@]:1}"; do
    srun --nodes=1 --ntasks=1 --overlap -w "$node" \
        ray start --block --address="$address" --node-name="$node" \
        --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" &
done

igq search deit_small_w4a4 --images /shared/imagenet/val --cluster "$address" \
    --out /shared/studies/deit_small_w4a4 &
search=$!
trap 'kill -TERM "$search"' TERM
wait "$search" || code=$?
wait "$search" || code=$? # a signal ends the first wait before the search has ended
kill $(jobs -p) 2>/dev/null || true
exit "${code:-0}"
