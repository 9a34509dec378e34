"""The command line: which words call which function of `commands/`, and how every failure ends.

torch and everything above it are imported inside the commands, so that `--help` and mistakes answer at once.
Exit codes: 0 done, 1 our fault, 2 a mistake in the input, 130 stopped by Ctrl-C (what was made is kept).
"""

import errno
import os
import re
import sys
from itertools import pairwise
from typing import Annotated

import typer

from mutoscope import __version__
from mutoscope.commands import (
    captioning,
    checkup,
    expanding,
    generating,
    hosting,
    judging,
    learning,
    modelling,
    planning,
    storyboarding,
    upscaling,
    verifying,
    worlds,
)
from mutoscope.errors import InputError

LONGEST_WORD = 160

app = typer.Typer(
    name="mutoscope",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

train = typer.Typer(help="Train a model.", rich_markup_mode=None)
data = typer.Typer(help="Prepare clips for training.", rich_markup_mode=None)
models = typer.Typer(help="List, fetch, convert and check models.", rich_markup_mode=None)
character = typer.Typer(help="Keep pictures of characters, for @NAME in prompts.", rich_markup_mode=None)
jobs = typer.Typer(help="See and stop the jobs of the server.", rich_markup_mode=None)
keys = typer.Typer(help="Make and end the API keys of the server.", rich_markup_mode=None)
app.add_typer(train, name="train")
app.add_typer(data, name="data")
app.add_typer(models, name="models")
app.add_typer(jobs, name="jobs")
app.add_typer(character, name="character")
app.add_typer(keys, name="keys")

app.command()(generating.generate)
app.command()(expanding.expand)
app.command()(generating.extend)
app.command()(generating.interpolate)
app.command()(generating.blend)
app.command()(generating.loop)
app.command()(generating.edit)
app.command()(generating.recut)
app.command()(storyboarding.inpaint)
app.command()(storyboarding.restyle)
app.command()(storyboarding.storyboard)
character.command("add")(storyboarding.character_add)
character.command("list")(storyboarding.character_list)
character.command("rm")(storyboarding.character_rm)
app.command()(generating.info)
app.command()(generating.reproduce)
app.command()(planning.plan)
app.command()(upscaling.upscale)
app.command()(verifying.verify)
app.command()(worlds.world)
app.command()(captioning.caption)
train.command("vae")(learning.train_vae)
train.command("dit")(learning.train_dit)
train.command("captioner")(captioning.train_captioner)
train.command("judge")(learning.train_judge)
train.command("expander")(learning.train_expander)
data.command("recaption")(captioning.data_recaption)
data.command("encode")(learning.data_encode)
data.command("stats")(learning.data_stats)
app.command()(judging.evaluate)
models.command("list")(modelling.models_list)
models.command("pull")(modelling.models_pull)
models.command("show")(modelling.models_show)
models.command("import")(modelling.models_import)
models.command("convert")(modelling.models_convert)
models.command("rm")(modelling.models_rm)
models.command("path")(modelling.models_path)
models.command("verify")(modelling.models_verify)
app.command()(hosting.serve)
app.command()(hosting.worker)
jobs.command("list")(hosting.jobs_list)
jobs.command("cancel")(hosting.jobs_cancel)
keys.command("create")(hosting.keys_create)
keys.command("list")(hosting.keys_list)
keys.command("revoke")(hosting.keys_revoke)
app.command()(checkup.doctor)


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Make videos from prompts, and train the models that make them.

    Begin with: mutoscope generate "a red ball rolls to the right"
    """
    if version:
        print(f"mutoscope {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit


def main() -> None:
    """Run the command line; every failure is one sentence on stderr and an exit code."""
    try:
        code = app(standalone_mode=False)
    except InputError as error:
        code = complain(str(error), 2)
    except typer.TyperException as error:
        code = complain(usage(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        code = complain("Stopped; nothing was written.", 130)
    except BrokenPipeError:  # the reader of our output went away, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as error:
        if os.environ.get("MUTOSCOPE_DEBUG") == "1":
            raise
        sentence = fault_of_the_machine(error)
        code = complain(sentence, 2) if sentence else complain(our_fault(error), 1)
    sys.exit(code)


def complain(sentence: str, code: int) -> int:
    """Tell what is wrong; words of the user's that no line holds are cut. Gives the exit code back."""
    from mutoscope.terminal import printable  # slow to import, needed only here

    print(printable(re.sub(rf"(\S{{{LONGEST_WORD}}})\S+", r"\1...", sentence)), file=sys.stderr)
    return code


def fault_of_the_machine(error: Exception) -> str | None:
    """What no command foresaw and nobody can mend here: a name too long, a folder that is none, no room."""
    if isinstance(error, MemoryError) or "allocate" in str(error):
        return "This machine has not enough memory for that; ask for a smaller --size or a shorter clip."
    if not isinstance(error, OSError) or (error.filename is None and error.errno != errno.ENOSPC):
        return None
    place = "a file" if error.filename is None else repr(str(error.filename)[:80])
    reason = (error.strerror or type(error).__name__).lower()
    return f"Cannot use {place}: {reason}; choose another name or place."


def our_fault(error: Exception) -> str:
    return (
        f"Mutoscope failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}; this is our "
        "fault, please report it with what the same command prints after `export MUTOSCOPE_DEBUG=1`."
    )


def usage(error: typer.TyperException) -> str:
    """A mistake in the options, as one sentence with its remedy."""
    sentence = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    if "unexpected extra argument" in sentence:
        return f"{sentence}; put a prompt of several words in quotes."
    if sentence == "Missing command" and context is not None:
        sentence += f": {', '.join(context.command.list_commands(context))}"
    options = getattr(getattr(error, "param", None), "opts", ())
    for value in (value for option, value in pairwise(sys.argv) if option in options):
        sentence = f"{sentence.partition(', unable to parse')[0]}, not {value!r}"
    return f"{sentence}; see `{context.command_path if context is not None else 'mutoscope'} --help`."


if __name__ == "__main__":
    main()
