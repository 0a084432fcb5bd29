#!/usr/bin/env bash
# The tables of three papers on the built-in corpus, from base/, as plain commands:
#   parts 1 to 6   Solovyev, Liu and Niehues 2024 (arXiv 2404.05720)
#   part 7         Gheini, Ren and May 2021 (arXiv 2104.08771)
#   part 8         Liu and Niehues 2025 (arXiv 2502.14830)
#
#   papers/reproduce.sh                    everything, 3 seeds; a finished row is not run again
#   papers/reproduce.sh --seeds "0 1 2 3"  more seeds
#   papers/reproduce.sh --jobs 1           one row at a time (default 2; a row takes one thread)
#
# It leaves models in runs/paper/, their scores in results/ and writes papers/RESULTS.md. To start a
# row anew, remove its file in results/. Nothing is chosen by a test score: learning rates are
# chosen by the validation loss of the seen language (part 1).
set -euo pipefail

help() { sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; }

SEEDS="0 1 2"
JOBS=2
while [ $# -gt 0 ]; do
    case $1 in
        --seeds) SEEDS=${2:?--seeds: say which, as in --seeds "0 1 2"}; shift 2 ;;
        --jobs) JOBS=${2:?--jobs: say how many}; shift 2 ;;
        --help | -h) help; exit 0 ;;
        *) echo "error: $1 is no option of this script" >&2; help >&2; exit 2 ;;
    esac
done
[ "$JOBS" -ge 1 ] || { echo "error: --jobs $JOBS: at least 1" >&2; exit 2; }
FIRST=${SEEDS%% *}  # of rows that have one seed only

cd "$(dirname "$0")/.."  # the project's root: every command below runs there
PYTHON=${PYTHON:-.venv-dev/bin/python}  # its pictures need matplotlib
if ! command -v "$PYTHON" > /dev/null; then
    echo "error: $PYTHON is missing; the README's test command makes it" >&2
    exit 2
fi
python() { "$PYTHON" "$@"; }
export OMP_NUM_THREADS=1
mkdir -p runs/paper results

# ------------------------------------------------------------------------------------------ tools

# job FILE COMMAND: runs it in the background unless FILE stands, $JOBS at once. A failure is told,
# and the rest goes on.
job() {
    local file=$1 log
    log=runs/paper/$(basename "$file" .json).log
    shift
    [ -f "$file" ] && return
    while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do wait -n || true; done
    [ -f "$file" ] && return  # one of those has made it
    run_job "$file" "$log" "$@" &
}
run_job() {
    local file=$1 log=$2
    shift 2
    if "$@" > "$log" 2>&1; then
        echo "$(date +%H:%M:%S) $file"
    else
        echo "FAILED $file: see $log" >&2
    fi
}
finish() { wait || true; }  # until all jobs are done
part() { echo "$(date +%H:%M:%S) part $1: $2 (after $((SECONDS / 60)) minutes)"; }

# score FILE MODEL "PAIRS": summaries of 100 test documents a pair.
score() {
    local pairs
    read -ra pairs <<< "$3"
    python eval.py --model "$2" --stage summarize --examples 100 --samples 0 --json "$1" \
        --pairs "${pairs[@]}"
}

# row NAME SEED "PAIRS" [options of train.py]: trains runs/paper/NAME-sSEED and scores it on PAIRS.
row() { job "results/$1-s$2.json" train_and_score "$@"; }
train_and_score() {
    python train.py --stage summarize --seed "$2" --no-eval --overwrite --out "runs/paper/$1-s$2" \
        "${@:4}" &&
        score "results/$1-s$2.json" "runs/paper/$1-s$2" "$3"
}

# translated FILE MODEL PAIR, teach NAME SEED PAIR [options of train.py]: the same for translation.
translated() {
    python eval.py --model "$2" --stage translate --examples 100 --samples 0 --json "$1" \
        --pairs "$3"
}
teach() {
    python train.py --stage translate --seed "$2" --pairs "$3" --no-eval --overwrite \
        --out "runs/paper/$1-s$2" "${@:4}" &&
        translated "results/$1-s$2.json" "runs/paper/$1-s$2" "$3"
}

# probe NAME SEED MODEL: how much each layer tells of the source language.
probe() {
    local file=results/$1+probe-s$2.json
    job "$file" python -m tools.layers --model "$3" --stage summarize --measures probe svcca \
        --source-lang en_XX es_XX ru_RU tr_TR --json "$file"
}

# retrieve NAME SEED MODEL: how near each layer brings translations.
retrieve() {
    local file=results/$1+retrieval-s$2.json
    job "$file" python -m tools.layers --model "$3" --stage summarize --measures retrieval \
        --source-lang en_XX es_XX ru_RU tr_TR gu_IN --json "$file"
}

WITHIN="en_XX-en_XX es_XX-es_XX ru_RU-ru_RU tr_TR-tr_TR gu_IN-gu_IN"
BETWEEN="es_XX-en_XX ru_RU-en_XX tr_TR-en_XX es_XX-ru_RU en_XX-tr_TR"
ACROSS="$BETWEEN tr_TR-tr_TR"

# --------------------------------------------------------------------------------------- part 1
# full and qk, trained on English alone and asked in every language, at every rate of the same grid
# (the first seed). The best rate of each is that of the lowest validation loss on English; the test
# scores of all rates are shown.
part 1 "full and qk on English, every learning rate of the grid"

# The first of part 5's two steps is begun here, for it needs nothing and takes long: translation in
# every pair of four languages, and copying.
translate() {
    python train.py --stage translate --langs en_XX es_XX ru_RU tr_TR --no-eval --overwrite \
        --out runs/paper/translate &&
        python eval.py --model runs/paper/translate --samples 0 --json results/translate.json \
            --pairs en_XX-es_XX es_XX-en_XX ru_RU-en_XX en_XX-tr_TR
}
job results/translate.json translate

for rate in 5e-4 1e-3 2e-3 4e-3 8e-3; do
    row "rate-full-$rate" "$FIRST" "$WITHIN" --recipe full --lr "$rate"
    row "rate-qk-$rate" "$FIRST" "$WITHIN" --recipe qk --lr "$rate"
done
finish
FULL=$(python -m papers.report --best-rate runs/paper/rate-full-*)
QK=$(python -m papers.report --best-rate runs/paper/rate-qk-*)
echo "learning rates by English validation loss: full $FULL, qk $QK"
for seed in $SEEDS; do
    row "rate-full-$QK" "$seed" "$WITHIN" --recipe full --lr "$QK"
    if [ "$FULL" != "$QK" ]; then
        row "rate-full-$FULL" "$seed" "$WITHIN" --recipe full --lr "$FULL"
    fi
    row "rate-qk-$QK" "$seed" "$WITHIN" --recipe qk --lr "$QK"
done

# --------------------------------------------------------------------------------------- part 2
# The other recipes at qk's rate (the paper's XL-Sum table; full and qk are there already).
part 2 "the other recipes on English, and how zero-shot scores move while it is learned"
for seed in $SEEDS; do
    for recipe in full+embeddings frozen_decoder attn_ln vqk q; do
        row "$recipe" "$seed" "$WITHIN" --recipe "$recipe" --lr "$QK"
    done
done
row supervised "$FIRST" "$WITHIN" --recipe full --lr "$FULL" --langs en_XX es_XX ru_RU tr_TR gu_IN

# curve RECIPE RATE: one run, stopped and asked at these updates, as it then is.
curve() {
    local run=runs/paper/curve-$1 update
    python train.py --stage summarize --recipe "$1" --lr "$2" --eval-every 50 --keep last \
        --no-eval --overwrite --out "$run" --stop-at 50 || return 1
    score "results/curve-$1@50-s0.json" "$run" "$WITHIN" || return 1
    for update in 100 200 300 400; do
        python train.py --resume "$run" --stop-at "$update" || return 1
        score "results/curve-$1@$update-s0.json" "$run" "$WITHIN" || return 1
    done
}
job results/curve-full@400-s0.json curve full "$QK"
job results/curve-qk@400-s0.json curve qk "$QK"
finish

# --------------------------------------------------------------------------------------- part 3
# 10, 100 and 1000 Spanish examples on top of the zero-shot models (the paper's 10000 would not be
# read within 100 updates); 32 more Spanish examples choose the update.
part 3 "a few Spanish examples on top"
for count in 10 100 1000; do
    for recipe in full qk; do
        row "few-$recipe-$count" "$FIRST" es_XX-es_XX --init "runs/paper/rate-$recipe-$QK-s$FIRST" \
            --langs es_XX --train-examples "$count" --recipe "$recipe" --lr 1e-3 --steps 100 \
            --warmup 10 --eval-every 20
    done
done

# --------------------------------------------------------------------------------------- part 4
# The first of the two steps, begun in part 1.
part 4 "wait for the translation model"
finish

# --------------------------------------------------------------------------------------- part 5
# Trained within en, es and ru, asked across languages and in Turkish (the paper's WikiLingua
# table). All rows that train whole layers take the same rate: the adversary needs one at which the
# encoder really moves.
part 5 "trained within three languages, asked across them"
JOINT=(--langs en_XX es_XX ru_RU)
MOVE=(--recipe full --lr 2e-3)
for seed in $SEEDS; do
    row joint-full "$seed" "$ACROSS" "${JOINT[@]}" "${MOVE[@]}"
    row joint-qk "$seed" "$ACROSS" "${JOINT[@]}" --recipe qk --lr "$QK"
    row joint-tagless "$seed" "$ACROSS" "${JOINT[@]}" "${MOVE[@]}" --tagless
    row joint-standard "$seed" "$ACROSS" "${JOINT[@]}" "${MOVE[@]}" --adversarial standard
    row joint-balanced "$seed" "$ACROSS" "${JOINT[@]}" "${MOVE[@]}" --adversarial balanced
    row joint-balanced-drop "$seed" "$ACROSS" "${JOINT[@]}" "${MOVE[@]}" --adversarial balanced \
        --residual-drop 2
    row two-step-qk "$seed" "$ACROSS" "${JOINT[@]}" --recipe qk --lr "$QK" \
        --init runs/paper/translate
    row two-step-full "$seed" "$ACROSS" "${JOINT[@]}" "${MOVE[@]}" --init runs/paper/translate
done
row joint-tagless-drop "$FIRST" "$ACROSS" "${JOINT[@]}" "${MOVE[@]}" --tagless --residual-drop 2
read -ra pairs <<< "$ACROSS"
row joint-supervised "$FIRST" "$ACROSS" "${MOVE[@]}" --pairs "${pairs[@]}"
finish
for seed in $SEEDS; do
    row joint-adv-tuned "$seed" "$ACROSS" "${JOINT[@]}" --recipe adv_tuned --lr 1e-3 \
        --init "runs/paper/joint-balanced-s$seed"
done

# --------------------------------------------------------------------------------------- part 6
# What needs no more training: the untuned base, the pipeline, the probes.
part 6 "the untuned base, translate-summarize-translate, probes"
job results/base-s0.json score results/base-s0.json base "$WITHIN $BETWEEN"

# pipeline FILE SUMMARIZER "PAIRS": to English and back.
pipeline() {
    local pairs
    read -ra pairs <<< "$3"
    python -m papers.pipeline "$2" runs/paper/translate --examples 100 --json "$1" \
        --pairs "${pairs[@]}"
}
job results/qk-pipeline-s0.json pipeline results/qk-pipeline-s0.json \
    "runs/paper/rate-qk-$QK-s$FIRST" "es_XX-es_XX ru_RU-ru_RU tr_TR-tr_TR"
job results/joint-pipeline-s0.json pipeline results/joint-pipeline-s0.json \
    "runs/paper/joint-qk-s$FIRST" "$ACROSS"

probe base 0 base
for name in joint-qk joint-tagless two-step-qk; do
    probe "$name" "$FIRST" "runs/paper/$name-s$FIRST"
done
for seed in $SEEDS; do
    for name in joint-full joint-standard joint-balanced joint-balanced-drop; do
        probe "$name" "$seed" "runs/paper/$name-s$seed"
    done
done

# The parent of part 7, begun here: French -> English with a French vocabulary of its own.
parent() {
    python -m tools.new_language fresh base runs/paper/parent-start --source fr_XX \
        --pairs fr_XX-en_XX --seed 0 --overwrite &&
        teach parent 0 fr_XX-en_XX --init runs/paper/parent-start --recipe src+body --steps 400
}
job results/parent-s0.json parent
finish

# --------------------------------------------------------------------------------------- part 7
# New languages. The parent's children read German (a new source; 60 updates) or write German (a new
# target; 200: to write takes longer than to read); the mBART variants keep the base's vocabulary
# (200). A child starts as a folder of its own, with fresh embeddings and, where its name says so, a
# random cross-attention (randxattn) or nothing of the parent at all (scratch).
part 7 "new languages: the children of a French-English parent"
PARENT=runs/paper/parent-s0
SHORT=(--lr 4e-3 --eval-every 20 --steps 60 --warmup 10)
LONG=(--lr 4e-3 --eval-every 20 --steps 200 --warmup 30)

# reader NAME SEED RECIPE [options of tools.new_language]: a child that reads German.
reader() { job "results/$1-s$2.json" teach_reader "$@"; }
teach_reader() {
    local start=runs/paper/$1-start-s$2
    python -m tools.new_language fresh "$PARENT" "$start" --source de_DE --pairs de_DE-en_XX \
        --seed "$2" --overwrite "${@:4}" &&
        teach "$1" "$2" de_DE-en_XX --init "$start" --recipe "$3" "${SHORT[@]}"
}

# writer NAME SEED LANG RECIPE [options of tools.new_language]: a child that writes LANG.
writer() { job "results/$1-s$2.json" teach_writer "$@"; }
teach_writer() {
    local start=runs/paper/$1-start-s$2
    python -m tools.new_language fresh "$PARENT" "$start" --target "$3" --pairs "fr_XX-$3" \
        --seed "$2" --overwrite "${@:5}" &&
        teach "$1" "$2" "fr_XX-$3" --init "$start" --recipe "$4" "${LONG[@]}"
}

# mbart NAME SEED RECIPE: the base itself learns German -> English.
mbart() { job "results/$1-s$2.json" teach "$1" "$2" de_DE-en_XX --recipe "$3" "${LONG[@]}"; }
mbart_random() {
    local start=runs/paper/mbart-randxattn-start-s$1
    python -m tools.new_language random-cross-attention base "$start" --seed "$1" --overwrite &&
        teach mbart-emb+randxattn "$1" de_DE-en_XX --init "$start" --recipe emb+xattn "${LONG[@]}"
}

for seed in $SEEDS; do
    reader child-src "$seed" src
    reader child-src+xattn "$seed" src+xattn
    reader child-src+randxattn "$seed" src+xattn --cross-attention random
    reader child-src+body "$seed" src+body
    reader child-src-scratch "$seed" full+embeddings --scratch
    writer child-tgt "$seed" de_DE tgt
    writer child-tgt+xattn "$seed" de_DE tgt+xattn
    writer child-tgt+randxattn "$seed" de_DE tgt+xattn --cross-attention random
    writer child-tgt+body "$seed" de_DE tgt+body
    writer child-tgt-scratch "$seed" de_DE full+embeddings --scratch
    writer child-spanish "$seed" es_XX tgt+xattn
    mbart mbart-emb "$seed" emb
    mbart mbart-emb+xattn "$seed" emb+xattn
    mbart mbart-full+embeddings "$seed" full+embeddings
    job "results/mbart-emb+randxattn-s$seed.json" mbart_random "$seed"
done
finish

# grafted FILE BODY DONOR PAIR: BODY with DONOR's source embeddings, as it is.
grafted() {
    local out
    out=runs/paper/graft-$(basename "$1" .json)
    python -m tools.new_language graft "$2" "$3" src "$out" --overwrite &&
        translated "$1" "$out" "$4"
}

for seed in $SEEDS; do
    for what in "" +xattn +randxattn +body; do
        child=runs/paper/child-src$what-s$seed
        # Do German words lie where the parent's French ones do?
        file=results/child-src$what+dictionary-s$seed.json
        job "$file" python -m papers.dictionary "$child" de_DE "$PARENT" fr_XX src --json "$file"
        # What is forgotten: the parent's French embeddings back in the child's body.
        file=results/child-src$what+parent-s$seed.json
        job "$file" grafted "$file" "$child" "$PARENT" fr_XX-en_XX
    done
    # Stitched: the German embeddings of one child in the body of the French -> Spanish child.
    file=results/stitched-s$seed.json
    job "$file" grafted "$file" "runs/paper/child-spanish-s$seed" \
        "runs/paper/child-src+xattn-s$seed" de_DE-es_XX
done
python -m tools.delta sizes base > results/sizes.txt

# --------------------------------------------------------------------------------------- part 8
# Alignment in encoder layer 2, on English-Spanish and English-Russian sentences: beside the task's
# updates, as LoRA (without dropout, as everything here), and trained apart and merged.
part 8 "translations meet in a middle layer"
LORA=(--lr 4e-3 --lora-dropout 0)
align_apart() {
    python train.py --stage align --align-layer 2 "${JOINT[@]}" --recipe lora "${LORA[@]}" \
        --seed "$1" --no-eval --overwrite --out "runs/paper/lora-align-s$1" &&
        touch "results/lora-align-s$1.done"
}
for seed in $SEEDS; do
    row joint-align "$seed" "$ACROSS" "${JOINT[@]}" "${MOVE[@]}" --align-layer 2
    row lora-task "$seed" "$ACROSS" "${JOINT[@]}" --recipe lora "${LORA[@]}"
    row lora-joint "$seed" "$ACROSS" "${JOINT[@]}" --recipe lora "${LORA[@]}" --align-layer 2
    job "results/lora-align-s$seed.done" align_apart "$seed"
done
finish

# merged SEED WEIGHT: task and alignment, trained apart, put together.
merged() {
    local run=runs/paper/lora-merged-$2-s$1 task=runs/paper/task-$1-$2.delta
    local align=runs/paper/align-$1-$2.delta
    python -m tools.delta save "runs/paper/lora-task-s$1" base "$task" --overwrite &&
        python -m tools.delta save "runs/paper/lora-align-s$1" base "$align" --overwrite &&
        python -m tools.delta merge base "$run" "$task=$2" "$align=$2" --overwrite &&
        score "results/lora-merged-$2-s$1.json" "$run" "$ACROSS"
}
for seed in $SEEDS; do
    for weight in 0.5 1.0; do
        job "results/lora-merged-$weight-s$seed.json" merged "$seed" "$weight"
    done
done
finish

retrieve base 0 base
for seed in $SEEDS; do
    for name in joint-full joint-align lora-task lora-align lora-joint lora-merged-0.5; do
        retrieve "$name" "$seed" "runs/paper/$name-s$seed"
    done
done
finish

python -m papers.report
echo "$(date +%H:%M:%S) all of it, after $((SECONDS / 60)) minutes"
