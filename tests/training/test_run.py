"""What trainings share: a run goes on where it was, keeps what it is told to, and ends as it should."""

from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from mutoscope.errors import InputError
from mutoscope.training.optimizer import OptimizerConfig, update
from mutoscope.training.run import Run, begun, due, look_for, record, save, steps
from mutoscope.training.state import TRY_AGAIN, StopSignal, checkpoints


@dataclass(frozen=True)
class LineConfig:
    """A line through points, the smallest thing that can be trained."""

    out: str
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(steps=7, warmup=1))
    ema: float = 0.9
    seed: int = 3
    threads: int = 0
    keep: int = 2
    checkpoint_every: int = 2
    note: str = ""


def train(config: LineConfig, resume: str | None = None, stop_at: int = 0, minutes: float = 0.0) -> Run:
    found = look_for(config, resume, {"out", "note"})
    line, stop = nn.Linear(3, 2), StopSignal()
    with closing(begun("train line", config, {"line": line}, found, told={"colour": "blue"})) as run:
        for step in steps(run, stop, minutes=minutes):
            points = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
            loss = (line(points) - points[:, :2]).square().mean()
            loss.backward()
            update(run.optimizers, step, loss.item(), config.optimizer)
            run.ema.update()
            run.log.write(step, loss=loss.item())
            stop.requested = step == stop_at
        return run


def names(folder: str) -> list[str]:
    return [path.name for path in checkpoints(Path(folder) / "checkpoints")]


def test_what_is_stopped_and_gone_on_with_equals_what_is_left_alone(tmp_path: Path) -> None:
    alone, cut = LineConfig(str(tmp_path / "alone")), LineConfig(str(tmp_path / "cut"))
    whole = train(alone)
    with pytest.raises(SystemExit) as ended:
        train(cut, stop_at=3)
    assert ended.value.code == TRY_AGAIN
    assert names(cut.out) == ["step-00000002", "step-00000003"]
    pieced = train(cut, "auto")
    for one, other in zip(
        whole.modules["line"].parameters(), pieced.modules["line"].parameters(), strict=True
    ):
        assert torch.equal(one, other)
    assert whole.log.path.read_bytes() == pieced.log.path.read_bytes()
    assert names(alone.out) == names(cut.out) == ["step-00000006", "step-00000007"]
    assert pieced.step == 7
    assert pieced.is_last


def test_time_is_counted_over_all_sittings(tmp_path: Path) -> None:
    config = LineConfig(str(tmp_path))
    with pytest.raises(SystemExit):
        train(config, stop_at=2)
    found = look_for(config, "auto", ())
    assert found.told["step"] == 2
    assert found.told["colour"] == "blue"
    run = begun("train line", config, {"line": nn.Linear(3, 2)}, found)
    assert run.seconds >= run.before > 0
    assert record(run, torch.device("cpu"))["steps"] == 2
    run.close()


def test_minutes_end_a_sitting(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        train(LineConfig(str(tmp_path)), minutes=1e-9)
    assert ended.value.code == TRY_AGAIN
    assert names(str(tmp_path)) == ["step-00000001"]


def test_a_signal_at_the_last_step_ends_the_run_as_usual(tmp_path: Path) -> None:
    assert train(LineConfig(str(tmp_path)), stop_at=7).step == 7


def test_only_what_changes_no_weight_may_differ(tmp_path: Path) -> None:
    config = LineConfig(str(tmp_path))
    with pytest.raises(SystemExit):
        train(config, stop_at=1)
    assert look_for(replace(config, note="other"), "auto", {"note"})
    with pytest.raises(InputError, match=r"ema was 0\.9, is 0\.5"):
        look_for(replace(config, ema=0.5), "auto", {"note"})
    with pytest.raises(InputError, match="continue it with --resume auto"):
        look_for(config, None, ())


def test_a_checkpoint_on_demand(tmp_path: Path) -> None:
    config = LineConfig(str(tmp_path), checkpoint_every=0)
    run = begun("train line", config, {"line": nn.Linear(3, 2)}, look_for(config, None, ()))
    run.step = 5
    assert save(run).name == "step-00000005"
    run.close()


def test_due() -> None:
    assert [step for step in range(1, 10) if due(3, step)] == [3, 6, 9]
    assert not any(due(0, step) for step in range(1, 10))
