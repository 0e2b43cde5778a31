#!/usr/bin/env bash
# All measurements for a GPU, as tables: the tests marked `gpu`, solo training on CartPole, MinAtar and Pong, and joint
# training with 1 to 64 runs.
#
#     benchmarks/gpu.sh                          # on a machine with a CUDA device and the package with the extra `test`
#     benchmarks/gpu.sh --device cpu --quick     # whether everything runs
set -euo pipefail
cd "$(dirname "$0")/.."

device=cuda quick=() turns=3 runs=(1 16 64) works=(cartpole minatar pong) more=(--mixed-precision)
while [ $# -gt 0 ]; do
    case $1 in
    --device) device=$2 && shift ;;
    --quick) quick=(--quick) turns=1 runs=(1 2) works=(cartpole) more=() ;;
    *) echo "usage: $0 [--device DEVICE] [--quick]" >&2 && exit 2 ;;
    esac
    shift
done
python=${PYTHON:-python}

echo "## Tests"
"$python" -m pytest -q -p no:cacheprovider -n 4 --dist loadfile -m gpu
echo "## Solo training"
"$python" benchmarks/training_speed.py --device "$device" --compile "${more[@]}" "${quick[@]}" --turns "$turns" --work "${works[@]}"
echo "## Joint training"
"$python" benchmarks/joint_speed.py --device "$device" "${quick[@]}" --turns 1 --work minatar --runs "${runs[@]}"
