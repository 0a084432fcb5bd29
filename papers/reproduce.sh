#!/usr/bin/env bash
# The tables of three papers, as plain commands. On the built-in corpus, from base/:
#   parts 1 to 6    Solovyev, Liu and Niehues 2024 (arXiv 2404.05720)
#   part 7          Gheini, Ren and May 2021 (arXiv 2104.08771)
#   part 8          Liu and Niehues 2025 (arXiv 2502.14830)
#   parts 9 to 13   what these leave open
# On real text, LibreOffice's help, from base-help/:
#   parts 14 to 17  Solovyev, Liu and Niehues again (first `python -m corpora.help`)
#
#   papers/reproduce.sh                     everything; a finished row is not run again (parts 14 to
#                                           17 read what `python -m corpora.help` makes)
#   papers/reproduce.sh --parts built-in    parts 1 to 8; open: 9 to 13; real: 14 to 17
#   papers/reproduce.sh --parts "1 2"       these parts alone, then the report
#   papers/reproduce.sh --seeds "0 1"       these seeds for every row (default: 0, every row once)
#   papers/reproduce.sh --seeds all         as the kept scores were made: 0 1 2, and 3 4 too for the
#                                           rows of full and qk on English alone
#   papers/reproduce.sh --jobs 1            one row at a time (default 2; a row takes one thread)
#
# It leaves models in runs/paper/ and what they scored in results/, from which it writes
# papers/scores/ and papers/RESULTS.md; there, seeds that were not run stay as they came, but those
# of another version of the help than was prepared here are left out. To start a row anew, remove
# its file in results/. A row whose model is missing is left out, and told with the part that makes
# it; it, or a row that failed, ends the script with status 1. Each part says how long its rows took
# last time. Learning rates are chosen by the validation loss of the seen language, never by a test
# score (parts 1, 2, 9, 14 and 15).
set -euo pipefail

if [ "${BASH_VERSINFO[0]}" -lt 5 ]; then
    echo "error: this needs bash 5, and this is $BASH_VERSION (macOS: brew install bash)" >&2
    exit 2
fi

help() { sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; }

BUILT_IN="1 2 3 4 5 6 7 8"
OPEN="9 10 11 12 13"
REAL="14 15 16 17"
PARTS="$BUILT_IN $OPEN $REAL"
SEEDS=0
MORE_SEEDS=0  # of full and qk on English alone
JOBS=2
while [ $# -gt 0 ]; do
    case $1 in
        --seeds)
            SEEDS=${2:?--seeds: say which, as in --seeds "0 1 2", or all}
            MORE_SEEDS=$SEEDS
            if [ "$SEEDS" = all ]; then
                SEEDS="0 1 2"
                MORE_SEEDS="0 1 2 3 4"
            fi
            shift 2
            ;;
        --parts) PARTS=${2:?--parts: say which, as in --parts "1 2"}; shift 2 ;;
        --jobs) JOBS=${2:?--jobs: say how many}; shift 2 ;;
        --help | -h) help; exit 0 ;;
        *) echo "error: $1 is no option of this script" >&2; help >&2; exit 2 ;;
    esac
done
if [[ ! $SEEDS =~ ^[0-9]+(\ [0-9]+)*$ ]]; then
    echo "error: --seeds '$SEEDS': whole numbers with a space between them, or all" >&2
    exit 2
fi
[ "$JOBS" -ge 1 ] || { echo "error: --jobs $JOBS: at least 1" >&2; exit 2; }
FIRST=${SEEDS%% *}  # of rows that have one seed only

cd "$(dirname "$0")/.."  # the project's root: every command below runs there
NAMED=$PARTS
PARTS=""
for part in $NAMED; do
    case $part in
        built-in) PARTS+=" $BUILT_IN" ;;
        open) PARTS+=" $OPEN" ;;
        real) PARTS+=" $REAL" ;;
        [1-9] | 1[0-7]) PARTS+=" $part" ;;
        *)
            echo "error: --parts $part: there are parts 1 to 17, and built-in, open and real" >&2
            exit 2
            ;;
    esac
done
for part in $PARTS; do
    if [ "$part" -ge 14 ] && [ ! -d data/help ]; then
        echo "error: part $part reads data/help, which \`python -m corpora.help\` makes (two" \
            "minutes); without it: --parts \"built-in open\"" >&2
        exit 2
    fi
done
PYTHON=${PYTHON:-.venv-dev/bin/python}  # its pictures need matplotlib
if ! command -v "$PYTHON" > /dev/null; then
    echo "error: $PYTHON is missing; the README's test command makes it" >&2
    exit 2
fi
python() { "$PYTHON" "$@"; }
# In float32 on a GPU too, where half precision is the default: so that rows of several machines may
# stand in one table.
train() { python train.py --precision fp32 "$@"; }
evaluate() { python eval.py --precision fp32 "$@"; }
export OMP_NUM_THREADS=1
mkdir -p runs/paper results
LACKING=$(mktemp)  # a line for each row that failed or was left out
# Each job is a group of processes: without that it would not hear a Ctrl-C, and go on by itself.
set -m
end() {
    local job
    for job in $(jobs -rp); do kill -- "-$job" 2>/dev/null || true; done
    wait || true
    rm -f "$LACKING"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ------------------------------------------------------------------------------------------ tools

# job FILE COMMAND: runs it in the background unless FILE stands or is being made, $JOBS at once. A
# failure is told, and the rest goes on. NEEDS="PART:MODEL ..." before it: not without these models,
# which those parts make.
declare -A BEGUN=()
job() {
    local file=$1 log needed scored mend
    log=runs/paper/$(basename "$file" .json).log
    shift
    if [ -f "$file" ] || [ -n "${BEGUN[$file]:-}" ]; then return; fi
    for needed in ${NEEDS:-}; do
        if ! is_made "${needed#*:}"; then
            mend=""
            for scored in "results/$(basename "${needed#*:}")".{json,done}; do  # its model is gone
                if [ -f "$scored" ]; then mend+="remove $scored, and "; fi
            done
            echo "MISSING ${needed#*:}, for $file: ${mend}run --parts ${needed%%:*} first" |
                tee -a "$LACKING" >&2
            return
        fi
    done
    BEGUN[$file]=yes
    while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do wait -n || true; done
    run_job "$file" "$log" "$@" &
}

# is_made MODEL: its folder stands from the first update on, its scores when it is trained.
is_made() {
    local scored
    scored=results/$(basename "$1")
    [ -f "$1/config.json" ] && { [ -f "$scored.json" ] || [ -f "$scored.done" ]; }
}

run_job() {
    trap 'exit 143' TERM  # not before the program in front has ended
    local file=$1 log=$2 begun=$SECONDS
    shift 2
    if "$@" > "$log" 2>&1; then
        echo "$part,$(basename "$file"),$((SECONDS - begun)),$MACHINE,$JOBS" >> results/seconds.csv
        echo "$(date +%H:%M:%S) $file"
    else
        echo "FAILED $file: $(tail -n 1 "$log") (see $log)" | tee -a "$LACKING" >&2
    fi
}
finish() { wait || true; }  # until all jobs are done

# summaries FILE MODEL "PAIRS" [options of eval.py]: writes and scores summaries. ROUGE of stemmed
# words too: the published figures are of these.
summaries() {
    local pairs
    read -ra pairs <<< "$3"
    evaluate --model "$2" --stage summarize --samples 0 --stem --json "$1" "${@:4}" \
        --pairs "${pairs[@]}"
}

# train_and SCORER NAME SEED "PAIRS" [options of train.py]: trains runs/paper/NAME-sSEED, which
# SCORER scores on PAIRS.
train_and() {
    local run=runs/paper/$2-s$3
    train --stage summarize --seed "$3" --no-eval --overwrite --out "$run" "${@:5}" &&
        "$1" "results/$2-s$3.json" "$run" "$4"
}

# best_rate ROWS PART: prints the learning rate with the lowest validation loss on English of the
# rows ROWS-RATE that PART runs.
best_rate() {
    python -m papers.report --best-rate "results/$1-"*.json && return
    echo "error: the learning rates of $1 are tried in part $2: run --parts $2 first" >&2
    return 2
}

MACHINE=$(nvidia-smi --query-gpu=name --format=csv,noheader 2> /dev/null | head -n 1 || true)
MACHINE=${MACHINE:-$(sed -n 's/^model name.*: //p' /proc/cpuinfo 2> /dev/null | head -n 1)}
MACHINE=${MACHINE:-$(uname -m)}

# heading PART WORDS: what comes, and how long its rows took last time, here or where papers/scores/
# comes from.
heading() {
    local files=() file
    for file in papers/scores/seconds.csv results/seconds.csv; do
        if [ -f "$file" ]; then files+=("$file"); fi
    done
    echo "$(date +%H:%M:%S) part $1: $2 (after $((SECONDS / 60)) minutes;" \
        "last time: $(last_time "$1" "${files[@]}"))"
}

# last_time PART FILES: the seconds of the part's rows, those of the last file where several have a
# row, as minutes of as many rows at once as there were; of how many rows that is, for not all may
# have been timed, and on which machines they ran.
last_time() {
    [ $# -gt 1 ] || { echo "not known"; return; }
    awk -F, -v part="$1" '
        $1 == part {
            if (!($2 in seconds)) rows[++count] = $2
            seconds[$2] = $3 / ($5 ? $5 : 2)  # 2: before it was kept
            machine[$2] = $4
        }
        END {
            for (number = 1; number <= count; number++) {
                sum += seconds[rows[number]]
                name = machine[rows[number]]
                if (!(name in told)) machines = machines (machines ? " and " : "") name
                told[name] = 1
            }
            many = count == 1 ? "row" : "rows"
            if (count) printf "%d %s took %.0f minutes on %s", count, many, sum / 60, machines
            else printf "not known"
        }' "${@:2}"
}

source papers/built_in.sh
source papers/open_questions.sh
source papers/real_text.sh

# ------------------------------------------------------------------------------------ all of it

for part in $PARTS; do
    [ "$part" = 4 ] || finish  # part 4 runs beside part 3
    "part_$part"
done
finish
python -m papers.keep
python -m papers.report
echo "$(date +%H:%M:%S) parts$PARTS, after $((SECONDS / 60)) minutes"
if [ -s "$LACKING" ]; then
    echo "error: $(wc -l < "$LACKING") rows are not there; they are named above" >&2
    exit 1
fi
