#!/usr/bin/env bash
# What one GPU must show, in at most 8 minutes; each part by itself, and resumable.
#
#     scripts/gpu.sh [FOLDER]           # results in FOLDER, by default build/gpu
#     DRY=1 scripts/gpu.sh [FOLDER]     # the same parts, as small as they get, on a CPU
#
# PETS=FOLDER names the whole Oxford-IIIT Pet data set, for "seconds to 0.75"; PYTHON the interpreter.
# Each part writes PART.log and, when it has ended well, PART.done: such parts aren't run again.
set -u
cd "$(dirname "$0")/.."
out=$(mkdir -p "${1:-build/gpu}" && cd "${1:-build/gpu}" && pwd)
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)}
dry=${DRY:-}
failed=0

part() {  # part NAME SECONDS COMMAND...: runs a command within a time, unless it has ended well
  local name=$1 limit=$2 began; shift 2
  [ -n "$dry" ] && limit=$((limit * 10))  # whose device may be slow and busy
  [ -e "$out/$name.done" ] && { echo "$name: done before"; return; }
  began=$(date +%s)
  if timeout "$limit" "$@" >"$out/$name.log" 2>&1; then
    echo "$(($(date +%s) - began)) s" >"$out/$name.done"
    echo "$name: $(cat "$out/$name.done")"
  else
    failed=1
    echo "$name: FAILED after $(($(date +%s) - began)) s, see $out/$name.log"
    tail -n 3 "$out/$name.log" | sed 's/^/    /'
  fi
}

train() {  # train NAME WORDS...: a training in a run directory of its own, which goes on if it is there
  local run="$out/runs/$1"; shift
  if [ -e "$run/summary.json" ]; then set -- "resume=$run"; else set -- "$@" "hydra.run.dir=$run"; fi
  "$python" -m segpets.train "$@"
}
export -f train
export out python

if [ -n "$dry" ]; then
  device="trainer=cpu"; small="debug=smoke"; models="unet vit_tiny"; batches="4"; steps="--rounds 1 --steps 2"
  variants=("" "augment=torchvision_crop"); target=0.05; epochs=1; tests="gpu or not slow"; where="tests/test_labels.py"
else
  device="trainer=gpu"; small="trainer.max_epochs=2"; batches="8 64 256"; steps="--rounds 3 --steps 30"
  models="unet segnet_dsc vit_tiny"; variants=("" "augment=torchvision_crop" "trainer.compile=true" "trainer.benchmark=true")
  target=0.70; epochs=28; tests="gpu"; where="tests"
fi

{ git rev-parse HEAD; "$python" -c 'import torch; print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")'; date -u; } >"$out/machine.txt" 2>&1
cat "$out/machine.txt"

part smoke 60 bash -c "train smoke $device debug=smoke model.widths=[4,8]"
part tests 120 "$python" -m pytest -q -p no:cacheprovider -m "$tests" "$where"
# The same seed on the CPU: the losses of the first steps are to be laid side by side.
for batch in 8 $([ -n "$dry" ] || echo 128); do
  part "pets_mini_$batch" 90 bash -c "train pets_mini_$batch $device $small data.batch_size=$batch"
done
part efficient_to_target 60 "$python" benchmarks/seconds_to.py --target $target --json "$out/pets_mini.json" $device trainer.max_epochs=$epochs $([ -n "$dry" ] && echo "model.widths=[4,8] data.size=32 trainer.limit_train_batches=2")
if [ -n "${PETS:-}" ] && [ -z "$dry" ]; then
  part efficient_to_0.75 120 "$python" benchmarks/seconds_to.py --target 0.75 --json "$out/pets.json" $device experiment=efficient data=oxford_pets "data.root=$PETS" data.size=128
fi
part steps 150 "$python" benchmarks/train_step.py --models $models --batches $batches $steps --variants "${variants[@]}" --json "$out/steps.json" $device
part steps_fp32 60 "$python" benchmarks/train_step.py --models unet --batches $([ -n "$dry" ] && echo 4 || echo 64) $steps --variants trainer.precision=32-true "trainer.precision=32-true trainer.float32_matmul=high" --json "$out/steps_fp32.json" $device
for model in $([ -n "$dry" ] && echo unet || echo unet unet_dsc fcn segnet segnet_dsc vit_tiny); do
  part "model_$model" 60 bash -c "train model_$model $device model=$model $small"
done
exit $failed
