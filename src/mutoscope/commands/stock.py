"""The verbs of the models that are here."""

from typing import Annotated

import typer


def models_list() -> None:
    """Name the models that come with the package."""
    from mutoscope.terminal import Say
    from mutoscope.weights.store import built_in, read_card

    names = built_in()
    cards = [read_card(name) for name in names]
    Say().table(
        {
            card.name: f"{card.defaults.width}x{card.defaults.height}, {card.licence}, built in"
            for card in cards
        }
        or {"none": "no model is built in; train one, or name a model folder with -m"}
    )


def models_show(model: Annotated[str, typer.Argument(help="A name, or a model folder.")]) -> None:
    """Show what a model says of itself."""
    from mutoscope.config import to_dict
    from mutoscope.terminal import Say, flat
    from mutoscope.weights.store import read_card

    Say().table(flat(to_dict(read_card(model))))
