#!/usr/bin/env bash
# The tables of three papers on the built-in corpus, from base/, as plain commands: parts 1 to 6 Solovyev, Liu and Niehues
# 2024 (arXiv 2404.05720), 7 Gheini, Ren and May 2021 (arXiv 2104.08771), 8 Liu and Niehues 2025 (arXiv 2502.14830).
#
#   papers/reproduce.sh                    everything, 3 seeds; a finished row is not run again
#   papers/reproduce.sh --seeds "0 1 2 3"  more seeds
#   papers/reproduce.sh --jobs 1           one row at a time (default 2: each row computes on one thread)
#
# It leaves models in runs/paper/, their scores in results/ and writes RESULTS.md. To start a row anew, remove its file in
# results/. Nothing is chosen by a test score: learning rates by the validation loss of the seen language (part 1).
set -euo pipefail
cd "$(dirname "$0")/.."  # the project: every command below runs there
SEEDS="0 1 2" JOBS=2
while [ $# -gt 0 ]; do
    case $1 in
        --seeds) SEEDS=$2; shift 2 ;;
        --jobs) JOBS=$2; shift 2 ;;
        *) sed -n '2,10p' "$0"; exit 2 ;;
    esac
done
[ "$JOBS" -ge 1 ] || { echo "error: --jobs $JOBS: at least 1" >&2; exit 2; }
FIRST=${SEEDS%% *}  # of rows that have one seed only
PYTHON=${PYTHON:-.venv-dev/bin/python}  # the README's second command makes it; the pictures need its matplotlib
command -v "$PYTHON" > /dev/null || { echo "error: $PYTHON is missing; run the README's test command first" >&2; exit 2; }
export OMP_NUM_THREADS=1
mkdir -p runs/paper results

# job FILE COMMAND: runs it in the background unless FILE stands, $JOBS at once; a failure is told and the rest goes on.
job() {
    local file=$1 log=runs/paper/$(basename "$1" .json).log; shift
    [ -f "$file" ] && return
    while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do wait -n || true; done
    [ -f "$file" ] && return  # one of those has made it
    { if "$@" > "$log" 2>&1; then echo "$(date +%H:%M:%S) $file"; else echo "FAILED $file: see $log" >&2; fi; } &
}
finish() { wait || true; }  # for all jobs
part() { echo "$(date +%H:%M:%S) part $1, after $((SECONDS / 60)) minutes"; }

# score FILE MODEL [options of eval.py]: 100 test documents a pair.
score() { $PYTHON eval.py --model "$2" --stage summarize --examples 100 --samples 0 --json "$1" "${@:3}"; }

# row NAME SEED "PAIRS" [options of train.py]: trains runs/paper/NAME-sSEED and scores it on PAIRS.
row() { job "results/$1-s$2.json" train_and_score "$@"; }
train_and_score() {
    $PYTHON train.py --stage summarize --seed "$2" --no-eval --overwrite --out "runs/paper/$1-s$2" "${@:4}" &&
        score "results/$1-s$2.json" "runs/paper/$1-s$2" --pairs $3
}

# The first of two steps: translation in every pair of four languages, and copying.
translate() {
    $PYTHON train.py --stage translate --langs en_XX es_XX ru_RU tr_TR --no-eval --overwrite --out runs/paper/translate &&
        $PYTHON eval.py --model runs/paper/translate --pairs en_XX-es_XX es_XX-en_XX ru_RU-en_XX en_XX-tr_TR \
            --samples 0 --json results/translate.json
}

# teach NAME SEED "PAIR" [options of train.py]: the same with translation.
translated() { $PYTHON eval.py --model "$2" --stage translate --examples 100 --samples 0 --json "$1" --pairs "${@:3}"; }
teach() {
    $PYTHON train.py --stage translate --seed "$2" --pairs $3 --no-eval --overwrite --out "runs/paper/$1-s$2" "${@:4}" &&
        translated "results/$1-s$2.json" "runs/paper/$1-s$2" $3
}

WITHIN="en_XX-en_XX es_XX-es_XX ru_RU-ru_RU tr_TR-tr_TR gu_IN-gu_IN"
ACROSS="es_XX-en_XX ru_RU-en_XX tr_TR-en_XX es_XX-ru_RU en_XX-tr_TR tr_TR-tr_TR"

# 1. full and qk, trained on English alone and asked in every language, at every rate of the same grid (the first seed).
#    The best rate of each is that of the lowest validation loss on English; the test scores of all rates are shown.
part 1
job results/translate.json translate  # of part 4: it needs nothing and takes long
for rate in 5e-4 1e-3 2e-3 4e-3 8e-3; do
    for recipe in full qk; do row rate-$recipe-$rate $FIRST "$WITHIN" --recipe $recipe --lr $rate; done
done
finish
FULL=$($PYTHON -m papers.report --best-rate runs/paper/rate-full-*)
QK=$($PYTHON -m papers.report --best-rate runs/paper/rate-qk-*)
echo "learning rates by English validation loss: full $FULL, qk $QK"
for seed in $SEEDS; do
    row rate-full-$QK $seed "$WITHIN" --recipe full --lr $QK
    [ $FULL = $QK ] || row rate-full-$FULL $seed "$WITHIN" --recipe full --lr $FULL
    row rate-qk-$QK $seed "$WITHIN" --recipe qk --lr $QK
done

# 2. The other recipes at qk's rate (the paper's XL-Sum table; full and qk at that rate are there already).
part 2
for seed in $SEEDS; do
    row full+embeddings $seed "$WITHIN" --recipe full+embeddings --lr $QK
    row frozen_decoder $seed "$WITHIN" --recipe frozen_decoder --lr $QK
    row attn_ln $seed "$WITHIN" --recipe attn_ln --lr $QK
    row vqk $seed "$WITHIN" --recipe vqk --lr $QK
    row q $seed "$WITHIN" --recipe q --lr $QK
done
row supervised $FIRST "$WITHIN" --recipe full --lr $FULL --langs en_XX es_XX ru_RU tr_TR gu_IN

#    How zero-shot scores move while English is learned: the same run, stopped and asked at these updates, as it then is.
curve() {  # curve RECIPE RATE
    local run=runs/paper/curve-$1
    for update in 50 100 200 300 400; do
        if [ $update = 50 ]; then
            $PYTHON train.py --stage summarize --recipe "$1" --lr "$2" --eval-every 50 --keep last --no-eval --overwrite \
                --out $run --stop-at 50
        else
            $PYTHON train.py --resume $run --stop-at $update
        fi && score "results/curve-$1@$update-s0.json" $run --pairs $WITHIN || return 1
    done
}
job results/curve-full@400-s0.json curve full $QK
job results/curve-qk@400-s0.json curve qk $QK

# 3. Few-shot: 10, 100 and 1000 Spanish examples on top of the zero-shot models (the paper's 10000 would not be read within
#    100 updates); 32 more Spanish examples choose the update.
finish
part 3
for count in 10 100 1000; do
    for recipe in full qk; do
        row few-$recipe-$count $FIRST "es_XX-es_XX" --init runs/paper/rate-$recipe-$QK-s$FIRST --langs es_XX \
            --train-examples $count --recipe $recipe --lr 1e-3 --steps 100 --warmup 10 --eval-every 20
    done
done

# 4. The first of the two steps, translation in every pair of four languages and copying, was begun in part 1.
finish

# 5. Trained within en, es and ru, asked across languages and in Turkish (the paper's WikiLingua table).
#    All rows that train whole layers take the same rate: the adversary needs one at which the encoder really moves.
part 5
JOINT="--langs en_XX es_XX ru_RU" MOVE=2e-3
for seed in $SEEDS; do
    row joint-full $seed "$ACROSS" $JOINT --recipe full --lr $MOVE
    row joint-qk $seed "$ACROSS" $JOINT --recipe qk --lr $QK
    row joint-tagless $seed "$ACROSS" $JOINT --recipe full --lr $MOVE --tagless
    row joint-standard $seed "$ACROSS" $JOINT --recipe full --lr $MOVE --adversarial standard
    row joint-balanced $seed "$ACROSS" $JOINT --recipe full --lr $MOVE --adversarial balanced
    row joint-balanced-drop $seed "$ACROSS" $JOINT --recipe full --lr $MOVE --adversarial balanced --residual-drop 2
    row two-step-qk $seed "$ACROSS" $JOINT --recipe qk --lr $QK --init runs/paper/translate
    row two-step-full $seed "$ACROSS" $JOINT --recipe full --lr $MOVE --init runs/paper/translate
done
row joint-tagless-drop $FIRST "$ACROSS" $JOINT --recipe full --lr $MOVE --tagless --residual-drop 2
row joint-supervised $FIRST "$ACROSS" --pairs $ACROSS --recipe full --lr $MOVE
finish
for seed in $SEEDS; do
    row joint-adv-tuned $seed "$ACROSS" $JOINT --recipe adv_tuned --lr 1e-3 --init runs/paper/joint-balanced-s$seed
done

# 6. What needs no more training: the untuned base, the pipeline, the probes.
part 6
job results/base-s0.json score results/base-s0.json base --pairs $WITHIN $ACROSS
pipeline() { score "$1" "$2" --pipeline runs/paper/translate --pairs "${@:3}"; }
job results/qk-pipeline-s0.json pipeline results/qk-pipeline-s0.json runs/paper/rate-qk-$QK-s$FIRST es_XX-es_XX ru_RU-ru_RU tr_TR-tr_TR
job results/joint-pipeline-s0.json pipeline results/joint-pipeline-s0.json runs/paper/joint-qk-s$FIRST $ACROSS
job results/base+probe-s0.json score results/base+probe-s0.json base --probe
probe() { job results/$1+probe-s$2.json score results/$1+probe-s$2.json runs/paper/$1-s$2 --probe; }
for name in joint-qk joint-tagless two-step-qk; do probe $name $FIRST; done
for seed in $SEEDS; do
    for name in joint-full joint-standard joint-balanced joint-balanced-drop; do probe $name $seed; done
done
job results/parent-s0.json teach parent 0 fr_XX-en_XX --new-source fr_XX --recipe src+body --steps 400  # of part 7

# 7. New languages (Gheini, Ren and May 2021): a French -> English parent with a French vocabulary of its own; its children
#    read German (new source; 60 updates) or write German (new target; 200: to write takes longer than to read); the mBART
#    variants keep the base's vocabulary (200).
child() { job "results/$1-s$2.json" teach "$@" --lr 4e-3 --eval-every 20; }
SHORT="--steps 60 --warmup 10" LONG="--steps 200 --warmup 30"
PARENT=runs/paper/parent-s0
finish
part 7
for seed in $SEEDS; do
    for what in "" +xattn +randxattn +body; do
        child child-src$what $seed de_DE-en_XX --init $PARENT --new-source de_DE --recipe src$what $SHORT
        child child-tgt$what $seed fr_XX-de_DE --init $PARENT --new-target de_DE --recipe tgt$what $LONG
    done
    child child-src-scratch $seed de_DE-en_XX --init $PARENT --new-source de_DE --recipe scratch $SHORT
    child child-tgt-scratch $seed fr_XX-de_DE --init $PARENT --new-target de_DE --recipe scratch $LONG
    for what in emb emb+xattn emb+randxattn full+embeddings; do
        child mbart-$what $seed de_DE-en_XX --recipe $what $LONG
    done
    child child-spanish $seed fr_XX-es_XX --init $PARENT --new-target es_XX --recipe tgt+xattn $LONG
done
finish
grafted() {  # grafted FILE BODY DONOR SIDE PAIR
    local out=runs/paper/graft-$(basename "$1" .json)
    $PYTHON -m tools.delta graft "$2" "$3" "$4" "$out" && translated "$1" "$out" "$5"
}
dictionary() { $PYTHON eval.py --model "$2" --dictionary --json "$1"; }
for seed in $SEEDS; do
    for what in "" +xattn +randxattn +body; do
        file=results/child-src$what+dictionary-s$seed.json
        job $file dictionary $file runs/paper/child-src$what-s$seed
        file=results/child-src$what+parent-s$seed.json  # the parent's French embeddings back in the child's body
        job $file grafted $file runs/paper/child-src$what-s$seed $PARENT src fr_XX-en_XX
    done
    file=results/stitched-s$seed.json  # German embeddings of one child in the French -> Spanish child
    job $file grafted $file runs/paper/child-spanish-s$seed runs/paper/child-src+xattn-s$seed src de_DE-es_XX
done
$PYTHON -m tools.delta sizes base > results/sizes.txt

# 8. Middle-layer alignment (Liu and Niehues 2025) in encoder layer 2, on English-Spanish and English-Russian sentences:
#    beside the task's updates, as LoRA (without dropout, as everything here), and trained apart and merged.
part 8
LORA="--lr 4e-3 --lora-dropout 0"
for seed in $SEEDS; do
    row joint-align $seed "$ACROSS" $JOINT --recipe full --lr $MOVE --align-layer 2
    row lora-task $seed "$ACROSS" $JOINT --recipe lora $LORA
    row lora-joint $seed "$ACROSS" $JOINT --recipe lora $LORA --align-layer 2
    job results/lora-align-s$seed.done bash -c "$PYTHON train.py --stage align --align-layer 2 $JOINT $LORA --seed $seed \
        --no-eval --overwrite --out runs/paper/lora-align-s$seed && touch results/lora-align-s$seed.done"
done
finish
merged() {  # merged SEED WEIGHT: task and alignment, trained apart
    local run=runs/paper/lora-merged-$2-s$1
    for part in task align; do
        $PYTHON -m tools.delta save runs/paper/lora-$part-s$1 base runs/paper/$part-$1-$2.delta || return 1
    done
    $PYTHON -m tools.delta merge base $run runs/paper/task-$1-$2.delta=$2 runs/paper/align-$1-$2.delta=$2 &&
        score results/lora-merged-$2-s$1.json $run --pairs $ACROSS
}
for seed in $SEEDS; do
    for weight in 0.5 1.0; do job results/lora-merged-$weight-s$seed.json merged $seed $weight; done
done
finish
for seed in $SEEDS; do
    for name in joint-full joint-align lora-task lora-align lora-joint lora-merged-0.5; do
        file=results/$name+retrieval-s$seed.json
        job $file score $file runs/paper/$name-s$seed --retrieval
    done
done
job results/base+retrieval-s0.json score results/base+retrieval-s0.json base --retrieval
finish

$PYTHON -m papers.report
echo "$(date +%H:%M:%S) all of it, after $((SECONDS / 60)) minutes"
