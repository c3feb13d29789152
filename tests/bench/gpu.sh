#!/usr/bin/env bash
# Measures one card in at most 8 minutes: batched decoding in each format at each batch, with the shapes of large models and
# random weights and with the real `base`, beside openai-whisper and CTranslate2.
#
#     tests/bench/gpu.sh                       # the first card; prints tables and the driver's name of the card
#     SECONDS_EACH=20 tests/bench/gpu.sh cpu   # the same steps on a CPU, to try the script
#
# Needs an environment with whisperd, its extras model-base and faster-whisper, and the test group, for instance
#     pip install -e '.[model-base,faster-whisper]' --group test
set -euo pipefail
cd "$(dirname "$0")/../.."
device=${1:-cuda}
python=${PYTHON:-python}
each=${SECONDS_EACH:-75} # a run that takes longer is ended; its lines so far count
if [ "$device" = cuda ]; then
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
  types=fp16,bf16 batches=1,2,4,8,16,32,64 peer=float16
else
  types=auto batches=1,2 peer=int8
fi

run() {
  echo "## batched.py $*"
  local status=0
  timeout "$each" "$python" tests/bench/batched.py --device "$device" --rounds 2 "$@" || status=$?
  case $status in
    0) ;;
    124) echo "(ended after $each s)" ;;
    *) echo "(failed with status $status)" && failed=1 ;;
  esac
}

failed=0
run --model base --types "$types" --batches "$batches"
run --model base --types "$types" --batches "$batches" --ctranslate2 "$peer"
for dims in turbo large-v3; do
  run --dims "$dims" --types "$types" --batches "$batches" --no-peer
  run --dims "$dims" --types "$types" --batches 16 --ctranslate2 "$peer"
done
exit "$failed"
