#!/usr/bin/env bash
# The built-in model on one GPU, in sittings of at most nine minutes: each saves, exits with 75, and is called again.
# Run it as often as the machine is lent: what is done is done. Ends with the weights in int8 rows under out/small.
set -euo pipefail
cd "$(dirname "$0")/.."
mutoscope=${MUTOSCOPE:-.venv/bin/mutoscope}

$mutoscope train vae configs/vae-gpu.toml --resume auto "$@"          # clips of the world -> the video VAE
$mutoscope train dit configs/dit-small-gpu.toml --resume auto "$@"    # clips of the world -> transformer, text encoder
$mutoscope evaluate out/dit-small-gpu/model --suite full              # every set, with intervals and floors
.venv/bin/python runs/pack.py out/dit-small-gpu/model out/vae-gpu/model out/small --storage int8
