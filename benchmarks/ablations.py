"""Claims of the specification as experiments: every arm trained and examined from one file, with intervals.

    python benchmarks/ablations.py configs/ablation-design.toml [--seeds 1 2] [--only ARM] [--set k=v] [-o DIR]

The file names a run of `mutoscope train dit` and its arms, which are changes to it. An arm is trained once with every
seed, until it has cost as many operations as the first arm in its steps (unless the file says `equal = "nothing"`).
What is done is not done again: the command may be killed, and given again. In DIR/TITLE come a folder for each run,
result.json, result.md, chart.svg and success.svg. Validation loss is of held-out latents at fixed noise levels, the
mean over sizes; success is the oracle's, on the sets of `mutoscope evaluate --suite full`. Intervals are 95 % bootstrap
over seeds and, within them, over clips; differences are paired by seed and question, over the seeds of both arms.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from mutoscope.config import load_config, to_dict, write_json
from mutoscope.data.latents import Size
from mutoscope.errors import InputError
from mutoscope.evaluation.examinee import answers_of
from mutoscope.evaluation.suite import chosen, examine, hardware
from mutoscope.models.dit import DIT_PRESETS, DiT, DiTConfig
from mutoscope.models.text import TEXT_PRESETS, TextConfig
from mutoscope.models.unet import UNET_PRESETS, UNet, UNetConfig
from mutoscope.training.monitor import count_flop
from mutoscope.training.train_dit import TrainDiTConfig, preset, train_dit
from mutoscope.weights.store import load, load_vae
from mutoscope.world.stage import View

RESAMPLES = 4000
TEXT = 12  # tokens of a medium caption, for counting operations
WIDTH, HEIGHT, LEFT, TOP, ROW = 640, 420, 60, 40, 26
NAMES, STRIP = 140, 17  # of success.svg: where arms' names end, and the height of a row
COLOURS = ("#c0392b", "#2471a3", "#1e8449", "#b7950b", "#7d3c98", "#117a65", "#a04000", "#34495e")

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ablation:
    """One experiment.

    base: the run file that every arm starts from. changes: to it in all arms, as of `--set`, which comes after them.
    arms: their own changes, which come last; the first arm is what others are held against. sets: of the full suite,
    and clips of each. fit: "power" fits loss = floor + a C^-b to the runs that no cheaper one beats. equal: what arms
    have in common besides data and seeds.
    """

    title: str
    base: str
    arms: Mapping[str, tuple[str, ...]]
    changes: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (1, 2, 3)
    sets: tuple[str, ...] = ("P0",)
    clips: int = 64
    equal: Literal["flop", "nothing"] = "flop"
    fit: Literal["", "power"] = ""


@dataclass(frozen=True)
class RunResult:
    """One arm with one seed. scores: by set, then by measure, a value for each clip."""

    arm: str
    seed: int
    parameters: int
    flop_per_step: float
    steps: int
    loss: float
    validation: Mapping[str, float]
    scores: Mapping[str, Mapping[str, tuple[float, ...]]]
    seconds: float
    hardware: str

    @property
    def flop(self) -> float:
        return self.flop_per_step * self.steps


# --- running


def config_of(ablation: Ablation, arm: str, seed: int, out: Path, changes: Sequence[str]) -> TrainDiTConfig:
    """The run of an arm; its steps are those that cost as much as the first arm's."""
    place = [f"seed={seed}", f'out="{out / f"{arm}-{seed}"}"']
    changes = [*ablation.changes, *changes]
    config = load_config(TrainDiTConfig, Path(ablation.base), [*changes, *ablation.arms[arm], *place])
    first = next(iter(ablation.arms))
    if ablation.equal == "nothing" or arm == first:
        return config
    other = load_config(TrainDiTConfig, Path(ablation.base), [*changes, *ablation.arms[first], *place])
    steps = round(other.optimizer.steps * flop_per_step(other) / flop_per_step(config))
    return dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, steps=steps))


def shape_of(config: TrainDiTConfig) -> DiTConfig | UNetConfig:
    """The network that a run trains."""
    text = preset(TextConfig, TEXT_PRESETS[config.size], config.text, "text").width
    changes = {"channels": channels_of(config.vae), "text_width": text} | dict(config.dit)
    if config.network == "unet":
        return preset(UNetConfig, UNET_PRESETS[config.size], changes, "dit")
    return preset(DiTConfig, DIT_PRESETS[config.size], changes, "dit")


@lru_cache
def channels_of(vae: str) -> int:
    return load_vae(vae, "cpu").latent_channels


def flop_per_step(config: TrainDiTConfig) -> float:
    """Operations of the network in a step, forward and backward, the mean over the mix of sizes."""
    shape, batches = shape_of(config), config.batches
    weights = sum(share.probability for share in batches.buckets)
    costs = []
    for share in batches.buckets:
        clips = batches.groups * max(1, round(batches.tokens / batches.groups / share.size.tokens))
        costs.append(share.probability / weights * clips * flop_per_clip(shape, share.size))
    return sum(costs)


@lru_cache
def flop_per_clip(shape: DiTConfig | UNetConfig, size: Size) -> float:
    """Forward and backward, with TEXT tokens of text and a timestep for every latent frame."""
    network = UNet(shape) if isinstance(shape, UNetConfig) else DiT(shape)
    frames = 1 + (size.frames - 1) // 4
    latent_BCTHW = torch.zeros(1, shape.channels, frames, size.height // 8, size.width // 8)
    text_BLD = torch.zeros(1, TEXT, shape.text_width)
    return count_flop(lambda: network(latent_BCTHW, torch.zeros(1, frames), text_BLD).sum())


def run(ablation: Ablation, arm: str, seed: int, out: Path, changes: Sequence[str]) -> RunResult:
    """Train and examine an arm with a seed, or read what came of it before."""
    config = config_of(ablation, arm, seed, out, changes)
    record = Path(config.out) / "ablation.json"
    asked = {"run": to_dict(config), "sets": list(ablation.sets), "clips": ablation.clips}
    if record.is_file():
        found = json.loads(record.read_text())
        if found["asked"] == json.loads(json.dumps(asked)):
            return from_record(found["result"])
        raise InputError(f"{config.out} holds another run than {arm} is now: choose another folder with -o.")
    model = load(train_dit(config, resume="auto"), config.device if config.device != "auto" else None)
    shown = model.card.defaults
    view = View(shown.width, shown.height, shown.frames, shown.fps)
    _, answers, _ = examine(answers_of(model), view, chosen("full", ablation.sets, ablation.clips), seed=0)
    scores: dict[str, dict[str, list[float]]] = {}
    for answer in answers:
        of_set = scores.setdefault(answer.question.exam.name, {})
        measures = dict(answer.measures)
        if answer.verdict:
            measures |= {"all": float(answer.right), "facts": float(np.mean(list(answer.verdict.values())))}
        for name, value in measures.items():
            of_set.setdefault(name, []).append(float(value))
    validation = model.card.training["validation"]
    result = RunResult(
        arm,
        seed,
        sum(parameter.numel() for parameter in model.dit.parameters()),
        flop_per_step(config),
        config.optimizer.steps,
        float(np.mean(list(validation.values()))),
        validation,
        {name: {key: tuple(values) for key, values in found.items()} for name, found in scores.items()},
        model.card.training["seconds"],
        hardware(next(model.dit.parameters()).device),
    )
    write_json(record, {"asked": asked, "result": to_dict(result)})
    return result


def from_record(data: Mapping[str, Any]) -> RunResult:
    scores = {
        name: {key: tuple(values) for key, values in found.items()} for name, found in data["scores"].items()
    }
    return RunResult(**{**data, "scores": scores})


# --- what it adds up to


def bootstrap(by_seed: Sequence[Sequence[float]], seed: int = 0) -> tuple[float, float, float]:
    """Mean and 95 % interval of values in one list for each seed: seeds are drawn again, then values within them."""
    rng = np.random.default_rng(seed)
    lists = [np.asarray(values, dtype=np.float64) for values in by_seed]
    means = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        picked = [lists[j] for j in rng.integers(len(lists), size=len(lists))]
        means[i] = np.mean([values[rng.integers(len(values), size=len(values))].mean() for values in picked])
    low, high = np.quantile(means, (0.025, 0.975))
    return float(np.mean([values.mean() for values in lists])), float(low), float(high)


@dataclass(frozen=True)
class PowerLaw:
    """loss = floor + a C^-b; b_low, b_high: 95 % of refits to drawn seeds."""

    floor: float
    a: float
    b: float
    r2: float
    b_low: float = math.nan
    b_high: float = math.nan

    def __call__(self, compute: Values) -> Values:
        return self.floor + self.a * compute**-self.b


def power_law(compute: Values, loss: Values) -> PowerLaw:
    """Least squares: the floor is looked for on a grid, a and b are a line in logarithms.

    r2 is of the logarithms of what is above the floor. Needs three points of different compute; compute and loss > 0.
    """
    best = None
    for share in np.linspace(0, 0.99, 397):
        floor = share * loss.min()
        line = np.polyfit(np.log(compute), np.log(loss - floor), 1)
        fitted = floor + np.exp(np.polyval(line, np.log(compute)))
        error = float(np.square(np.log(fitted) - np.log(loss)).sum())
        if best is None or error < best[0]:
            above = np.log(loss - floor)
            rest = above - np.polyval(line, np.log(compute))
            r2 = 1 - float(np.square(rest).sum() / np.square(above - above.mean()).sum())
            best = error, PowerLaw(float(floor), float(np.exp(line[1])), float(-line[0]), r2)
    assert best is not None
    return best[1]


def frontier(compute: Values, loss: Values) -> npt.NDArray[np.int64]:
    """Which points no point of as little compute beats, in the order of compute."""
    kept: list[int] = []
    for place in np.lexsort((loss, compute)):
        if not kept or loss[place] < loss[kept[-1]]:
            kept.append(int(place))
    return np.array(kept)


def fitted(runs: Sequence[RunResult]) -> PowerLaw | None:
    """The law of the frontier of the arms' mean losses; None where fewer than three arms lie on it."""

    def law_of(chosen_runs: Sequence[RunResult]) -> PowerLaw | None:
        arms = grouped(chosen_runs)
        compute = np.array([np.mean([one.flop for one in arm]) for arm in arms.values()])
        loss = np.array([np.mean([one.loss for one in arm]) for arm in arms.values()])
        best = frontier(compute, loss)
        return power_law(compute[best], loss[best]) if len(best) >= 3 else None

    law = law_of(runs)
    if law is None:
        return None
    rng, arms, refits = np.random.default_rng(0), grouped(runs), []
    for _ in range(200):
        drawn = [arm[j] for arm in arms.values() for j in rng.integers(len(arm), size=len(arm))]
        if (refit := law_of(drawn)) is not None:
            refits.append(refit.b)
    low, high = np.quantile(refits, (0.025, 0.975))
    return dataclasses.replace(law, b_low=float(low), b_high=float(high))


def grouped(runs: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """The runs of each arm, by seed."""
    arms: dict[str, list[RunResult]] = {}
    for one in sorted(runs, key=lambda one: one.seed):
        arms.setdefault(one.arm, []).append(one)
    return {arm: arms[arm] for arm in dict.fromkeys(one.arm for one in runs)}


def summary(ablation: Ablation, runs: Sequence[RunResult]) -> dict[str, Any]:
    """Every arm's cost, loss, scores with intervals and differences to the first arm."""
    arms, rows = grouped(runs), {}
    first = next(iter(arms.values()))
    for arm, of_arm in arms.items():
        row: dict[str, Any] = {
            "parameters": of_arm[0].parameters,
            "flop": float(np.mean([one.flop for one in of_arm])),
            "steps": of_arm[0].steps,
            "seconds": float(np.mean([one.seconds for one in of_arm])),
            "loss": [one.loss for one in of_arm],
            "scores": {},
        }
        for name, measures in of_arm[0].scores.items():
            for measure in measures:
                mine, theirs = (
                    {one.seed: one.scores[name].get(measure, ()) for one in side} for side in (of_arm, first)
                )
                score: dict[str, Any] = {"interval": bootstrap(list(mine.values()))}
                shared = [seed for seed in mine if len(mine[seed]) == len(theirs.get(seed, ()))]
                if of_arm is not first and shared:
                    apart = [np.subtract(mine[seed], theirs[seed]).tolist() for seed in shared]
                    score["difference"] = bootstrap(apart)
                row["scores"][f"{name} {measure}"] = score
        rows[arm] = row
    law = fitted(runs) if ablation.fit == "power" else None
    return {
        "ablation": to_dict(ablation),
        "hardware": sorted({one.hardware for one in runs}),
        "arms": rows,
        "law": None if law is None else to_dict(law),
    }


# --- writing


def table(result: Mapping[str, Any]) -> str:
    """Markdown: a row for each arm."""
    arms, ablation = result["arms"], result["ablation"]
    measures = list(dict.fromkeys(key for row in arms.values() for key in row["scores"]))
    head = ["arm", "parameters", "FLOP", "steps", "seconds", "validation loss", *measures]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for arm, row in arms.items():
        losses = row["loss"]
        spread = f" ± {np.std(losses, ddof=1):.4f}" if len(losses) > 1 else ""
        cells = [
            arm,
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['flop']:.2e}",
            f"{row['steps']}",
            f"{row['seconds']:.0f}",
            f"{np.mean(losses):.4f}{spread}",
        ]
        for measure in measures:
            score = row["scores"].get(measure)
            cells.append("" if score is None else said(score))
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"{len(ablation['seeds'])} seed(s), {ablation['clips']} clips a set; {'; '.join(result['hardware'])}.",
    ]
    if law := result["law"]:
        lines.append(
            f"Loss = {law['floor']:.4f} + {law['a']:.3g} C^-{law['b']:.3f} (b in {law['b_low']:.3f} to "
            f"{law['b_high']:.3f}), R² {law['r2']:.3f}."
        )
    return "\n".join(lines) + "\n"


def said(score: Mapping[str, Sequence[float]]) -> str:
    mean, low, high = (100 * value for value in score["interval"])
    words = f"{mean:.1f} % ({low:.1f} to {high:.1f})"
    if "difference" in score:
        apart, low, high = (100 * value for value in score["difference"])
        words += f"; {apart:+.1f} ({low:+.1f} to {high:+.1f})"
    return words


def chart(result: Mapping[str, Any]) -> str:
    """SVG: loss of every run against its operations, both in logarithms, with the law if there is one."""
    arms, law = result["arms"], result["law"]
    points = [(row["flop"], loss) for row in arms.values() for loss in row["loss"]]
    x = np.log10([flop for flop, _ in points])
    y = np.log10([loss for _, loss in points])
    left, right, low, high = x.min() - 0.1, x.max() + 0.1, y.min() - 0.02, y.max() + 0.02

    def place(flop: float, loss: float) -> tuple[float, float]:
        across, up = (math.log10(flop) - left) / (right - left), (math.log10(loss) - low) / (high - low)
        return LEFT + across * (WIDTH - LEFT - 150), TOP + (1 - up) * (HEIGHT - TOP - 60)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    ]
    for value in np.linspace(low, high, 5):
        _, at = place(10**left, 10**value)
        parts.append(f'<path d="M{LEFT},{at:.1f} H{WIDTH - 150}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{10**value:.3f}</text>')
    for value in np.linspace(left, right, 4):
        at, _ = place(10**value, 10**low)
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - 42}" text-anchor="middle">{10**value:.1e}</text>')
    if law is not None:
        curve = PowerLaw(**law)
        grid = np.logspace(left, right, 60)
        line = " ".join("{:.1f},{:.1f}".format(*place(*pair)) for pair in zip(grid, curve(grid), strict=True))
        parts.append(f'<polyline points="{line}" fill="none" stroke="#888" stroke-dasharray="4"/>')
    for number, (arm, row) in enumerate(arms.items()):
        colour = COLOURS[number % len(COLOURS)]
        for loss in row["loss"]:
            at, down = place(row["flop"], loss)
            parts.append(f'<circle cx="{at:.1f}" cy="{down:.1f}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{WIDTH - 140}" y="{TOP + 18 * number}" fill="{colour}">{arm}</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 16}">operations of training; validation loss</text></svg>')
    return "\n".join(parts) + "\n"


def success(result: Mapping[str, Any]) -> str:
    """SVG: success of every arm on every set, with its interval; a row for each."""
    arms = result["arms"]
    names = [key for key in next(iter(arms.values()))["scores"] if key.endswith((" all", " facts"))]
    height = TOP + ROW + sum(ROW + STRIP * len(arms) for _ in names)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="12"><rect width="{WIDTH}" height="{height}" fill="white"/>'
    ]

    def across(share: float) -> float:
        return NAMES + share * (WIDTH - NAMES - 60)

    for share in np.linspace(0, 1, 6):
        parts.append(f'<path d="M{across(share):.1f},{TOP - 8} V{height - 8}" stroke="#ddd"/>')
        parts.append(f'<text x="{across(share):.1f}" y="{TOP - 14}" text-anchor="middle">{share:.0%}</text>')
    down = float(TOP)
    for name in names:
        down += ROW
        parts.append(f'<text x="10" y="{down - 8:.1f}" font-weight="bold">{name}</text>')
        for number, (arm, row) in enumerate(arms.items()):
            colour, (mean, low, high) = COLOURS[number % len(COLOURS)], row["scores"][name]["interval"]
            parts += [
                f'<text x="{NAMES - 10}" y="{down + 8:.1f}" text-anchor="end" fill="{colour}">{arm}</text>',
                f'<path d="M{across(low):.1f},{down + 4:.1f} H{across(high):.1f}" stroke="{colour}" '
                'stroke-width="2"/>',
                f'<circle cx="{across(mean):.1f}" cy="{down + 4:.1f}" r="4" fill="{colour}"/>',
                f'<text x="{across(high) + 8:.1f}" y="{down + 8:.1f}" fill="{colour}">{100 * mean:.0f}</text>',
            ]
            down += STRIP
    return "\n".join([*parts, "</svg>"]) + "\n"


def write(folder: Path, ablation: Ablation, runs: Sequence[RunResult]) -> dict[str, Any]:
    """result.json, result.md, chart.svg and success.svg of the runs so far."""
    result = summary(ablation, runs)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "result.json", result)
    (folder / "result.md").write_text(table(result))
    (folder / "chart.svg").write_text(chart(result))
    (folder / "success.svg").write_text(success(result))
    return result


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("file", type=Path)
    options.add_argument("--seeds", type=int, nargs="+")
    options.add_argument("--only", nargs="+", help="arms to run now")
    options.add_argument("--clips", type=int, help="clips of each set")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of every run")
    options.add_argument("-o", "--out", type=Path, default=Path("out/ablations"))
    given = options.parse_args()
    ablation = load_config(Ablation, given.file)
    if given.seeds:
        ablation = dataclasses.replace(ablation, seeds=tuple(given.seeds))
    if given.clips is not None:
        ablation = dataclasses.replace(ablation, clips=given.clips)
    folder, runs = given.out / ablation.title, list[RunResult]()
    for seed in ablation.seeds:  # seed by seed, so that every arm has something to show early
        for arm in given.only or ablation.arms:
            runs.append(run(ablation, arm, seed, folder, given.set))
            write(folder, ablation, runs)
            print(f"{arm}, seed {seed}: loss {runs[-1].loss:.4f}", flush=True)
    print(table(write(folder, ablation, runs)))


if __name__ == "__main__":
    main()
