#!/usr/bin/env bash
# The whole recipe of the built-in model, from nothing to the weights in the package: about twelve hours on two
# cores with bf16 matrix units (AMX), a night without them (set precision = "fp32" there).
# Every step writes a folder under out/, can be run alone, and continues where it was when it is run again.
set -euo pipefail
cd "$(dirname "$0")/.."
mutoscope=.venv/bin/mutoscope

make install
$mutoscope train vae configs/vae-tiny.toml --resume auto      # clips of the world -> the video VAE
$mutoscope data encode configs/latents-tiny.toml              # clips of the world -> latents with captions
$mutoscope train dit configs/dit-tiny.toml --resume auto      # latents -> diffusion transformer, text encoder
$mutoscope train dit configs/dit-tiny-leg2.toml --resume auto # ... and on from there
$mutoscope train dit configs/dit-tiny-leg3.toml --resume auto
$mutoscope train dit configs/dit-tiny-leg4.toml --resume auto # ... three times, on plain motion
$mutoscope data encode configs/latents-full.toml              # everything that the world can do -> latents
$mutoscope train dit configs/dit-tiny-leg5.toml --resume auto # ... and on from there on all of it
$mutoscope train vae configs/decoder-tiny.toml --resume auto  # what the transformer makes -> the VAE's decoder
$mutoscope train dit configs/dit-tiny-leg6.toml --resume auto # ... and with more noise, where places are decided
$mutoscope data encode configs/latents-hard.toml              # more of what it fails at -> latents
$mutoscope train dit configs/dit-tiny-leg7.toml --resume auto # ... and on from there
$mutoscope data encode configs/latents-beside.toml            # ... pairs at rest
$mutoscope train dit configs/dit-tiny-leg8.toml --resume auto
$mutoscope data encode configs/latents-two.toml               # ... two things
$mutoscope train dit configs/dit-tiny-leg9.toml --resume auto # ... and on from there on all four caches
.venv/bin/python runs/pack.py out/dit-tiny-leg9/model out/decoder-tiny/model out/tiny-leg9 --guidance 2
$mutoscope train vae configs/decoder-tiny-leg9.toml --resume auto # what that makes -> the decoder once more
$mutoscope data encode configs/latents-labelled.toml          # clips whose captions the captioner may see
$mutoscope train captioner configs/captioner-tiny.toml --resume auto
$mutoscope data encode configs/latents-labelled-beside.toml   # ... and more of them, with pairs at rest
$mutoscope train captioner configs/captioner-tiny-leg2.toml --resume auto
$mutoscope train expander configs/expander-tiny.toml --resume auto # what a prompt states -> a caption that says it
cp out/expander-tiny/model/* src/mutoscope/weights/expander/
.venv/bin/python runs/pack.py out/dit-tiny-leg9/model out/decoder-tiny-leg9/model out/tiny-nine --guidance 2 \
  --captioner out/captioner-tiny-leg2/model --candidates 4         # half precision
$mutoscope data encode configs/latents-last.toml              # falls, stories, other shapes
$mutoscope data encode configs/latents-led.toml               # clips behind a portrait of somebody in them
$mutoscope train dit configs/dit-tiny-leg10.toml --resume auto
.venv/bin/python runs/pack.py out/dit-tiny-leg10/model out/tiny-nine out/tiny --guidance 2 \
  --captioner out/tiny-nine --candidates 4
$mutoscope evaluate out/tiny --suite quick                    # prompts -> clips -> what the oracle sees in them
