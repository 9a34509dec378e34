"""The verb that says what this machine can do."""

import sys

import typer


def doctor() -> None:
    """Check this installation; say what to mend and how."""
    from mutoscope.doctor import examine
    from mutoscope.terminal import Say

    findings = examine()
    Say().table({finding.name: finding.found for finding in findings})
    wrong = [f"{finding.name}: {finding.remedy}" for finding in findings if finding.remedy]
    if wrong:
        print(*wrong, sep="\n", file=sys.stderr)
        raise typer.Exit(1)
