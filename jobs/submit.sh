#!/usr/bin/env bash
# Submit a recipe to a Ray cluster and follow it. Give the same command again after a crash: the build goes on.
#
#   RAY_API_SERVER_ADDRESS=http://head:8265 jobs/submit.sh my.yaml s3://bucket/builds/mine
#
# A dashboard inside Kubernetes or behind ssh is brought to this machine first, in another terminal:
#   kubectl port-forward service/NAME-head-svc 8265:8265
#   ssh -L 8265:127.0.0.1:8265 head
set -euo pipefail

recipe=${1:?give a recipe}
out=${2:?give s3://bucket/prefix, or a path that all nodes see}
shift 2

# the job's exit code: 0 all well, 130 after Ctrl-C (the job goes on), 143 stopped
export RAY_API_SERVER_ADDRESS=${RAY_API_SERVER_ADDRESS:-http://127.0.0.1:8265}
curate submit "$recipe" --out "$out" "$@"
