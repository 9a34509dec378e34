"""`mutoscope expand`, and expansion and LoRAs within `generate`."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mutoscope import cli

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The command line in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mutoscope", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return call


@pytest.fixture
def dead_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{unused.getsockname()[1]}/v1")
    monkeypatch.setenv("MUTOSCOPE_LLM_MODEL", "m")


def test_expand_shows_facts_as_json(run: Run) -> None:
    code, out, _ = run("expand", "gren ball, a giraffe", "--seed", "3", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["prompt"] == "gren ball, a giraffe"
    assert "green ball" in told["expanded_prompt"]
    assert told["unknown"] == ["giraffe"]
    assert "colour 0 green" in told["stated"]
    assert {fact.split()[0] for fact in told["added"]} == {"background", "direction"}
    assert run("expand", "gren ball, a giraffe", "--seed", "3", "--json")[1] == out


def test_expand_for_people_and_for_pipes(run: Run) -> None:
    _, out, _ = run("expand", "a red ball and a giraffe")
    assert "giraffe" in out
    assert "expanded" in out
    quiet = run("expand", "a red ball and a giraffe", "-q")[1]
    assert quiet.count("\n") == 1
    assert "giraffe" not in quiet
    long = run("expand", "a red ball", "-q", "--detailed")[1]
    assert len(long) > 1.5 * len(run("expand", "a red ball", "-q")[1])


def test_other_models_get_the_prompt_itself(run: Run, tmp_path: Path) -> None:
    assert run("expand", "a red ball", "-q", "-m", str(tmp_path))[1] == "a red ball\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [(["expand", " "], "empty"), (["expand", "a", "--expander", "oracle"], "oracle"),
     (["generate", "a", "--expander", "oracle"], "oracle"), (["expand", "a", "--seed", "-1"], "seed")],
)  # fmt: skip
def test_mistakes_are_one_sentence(run: Run, words: list[str], told: str) -> None:
    code, _, err = run(*words)
    assert code == 2
    assert told in err
    assert err.count("\n") == 1


def test_no_endpoint_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    code, _, err = run("expand", "a red ball", "--expander", "llm")
    assert (code, "OPENAI_BASE_URL" in err) == (2, True)


def test_an_endpoint_that_is_down_falls_back_unless_forbidden(run: Run, dead_endpoint: None) -> None:
    pytest.importorskip("openai")
    code, out, _ = run("expand", "a red ball rolls right", "--expander", "llm", "--json")
    told = json.loads(out)
    assert (code, told["by"]) == (0, "offline")
    assert "red ball" in told["expanded_prompt"]
    code, _, err = run("expand", "a red ball", "--expander", "llm", "--no-fallback")
    assert (code, err.count("\n")) == (2, 1)


def test_generate_takes_other_models_word_for_word_and_loras(
    run: Run, model_folder: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import save_file

    from mutoscope.weights.store import load

    width = load(model_folder).dit.head.weight
    pair = {
        "head.lora_A.weight": torch.ones(2, width.shape[1]),
        "head.lora_B.weight": torch.ones(len(width), 2),
    }
    save_file(pair, tmp_path / "style.safetensors")
    fast = ["-m", str(model_folder), "--steps", "2", "--frames", "5", "--seed", "1", "--json"]
    plain = json.loads(run("generate", "a red ball", *fast)[1])
    styled = json.loads(run("generate", "a red ball", *fast, "--lora", "style.safetensors:0.5")[1])
    off = json.loads(run("generate", "a red ball", *fast, "--lora", "style.safetensors:0")[1])
    assert plain["expanded_prompt"] == "a red ball"
    assert plain["path"] != styled["path"]
    assert styled["sha256"] not in (plain["sha256"], off["sha256"])
    code, _, err = run("generate", "a", *fast, "--lora", "missing.safetensors")
    assert (code, "missing.safetensors" in err) == (2, True)
    save_file(pair | {"elsewhere.lora_A.weight": torch.ones(2, 3)}, tmp_path / "partly.safetensors")
    code, _, err = run("generate", "a", *fast, "--lora", "partly.safetensors")
    assert (code, "elsewhere.lora_A.weight" in err, "--allow-unmatched" in err) == (2, True, True)
    assert run("generate", "a", *fast, "--lora", "partly.safetensors", "--allow-unmatched")[0] == 0
    code, _, err = run("reproduce", styled["path"], "-m", str(model_folder), "-o", "again.mp4")
    assert (code, "weights" in err) == (2, True)
    again = ["-m", str(model_folder), "-o", "again.mp4", "--lora", "style.safetensors:0.5"]
    assert run("reproduce", styled["path"], *again)[0] == 0


def test_generate_expands_for_the_built_in_model(run: Run) -> None:
    fast = ["--steps", "1", "--frames", "5", "--seed", "1", "--json"]
    told = json.loads(run("generate", "scarlet sphere left", *fast)[1])
    assert told["prompt"] == "scarlet sphere left"
    assert "red ball" in told["expanded_prompt"]
    kept = json.loads(run("generate", "scarlet sphere left", *fast, "--no-expand")[1])
    assert kept["expanded_prompt"] == "scarlet sphere left"
    assert told["path"] == "scarlet-sphere-left-1.mp4"


def test_expand_needs_no_torch() -> None:
    words = "import sys; sys.argv = ['m', 'expand', 'a red ball', '-q']; from mutoscope import cli\n"
    words += "try: cli.main()\nexcept SystemExit: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
