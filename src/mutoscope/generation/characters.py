"""Characters: a picture and a description under a name, put into prompts that say `@NAME`.

`@NAME` becomes its description. Where a clip names one character and has no picture of its own, the model is shown the
character's, before the clip or as its first frame (see `generation.shown`); so with each shot of a storyboard.
"""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mutoscope.config import from_dict, read_table, write_json
from mutoscope.errors import InputError
from mutoscope.files import replacing_folder
from mutoscope.generation.cards import Storyboard, shots_of
from mutoscope.generation.request import Request, suggestion
from mutoscope.video import Video, read_video, write_video

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
MENTION = re.compile(r"(?<![\w@])@([A-Za-z][A-Za-z0-9_-]*)")


@dataclass(frozen=True)
class Character:
    """A name, what it looks like in words, and a file with its picture."""

    name: str
    description: str
    picture: Path


def shelf() -> Path:
    """The folder of the user's characters: in $MUTOSCOPE_DATA, or the user's data folder."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(os.environ.get("MUTOSCOPE_DATA") or Path(home) / "mutoscope") / "characters"


def add_character(name: str, file: Path, description: str) -> Character:
    """Keep the first frame of a picture or clip under a name, in place of what had it.

    Raises InputError for a name that is no word, no description, or a file that cannot be read.
    """
    if not NAME.fullmatch(name):
        raise InputError(
            f"The name {name!r} is no name of a character; use up to 40 letters, digits, - and _, a letter first."
        )
    if not description.strip():
        raise InputError(f"{name} has no description; say what it looks like, as in 'a small red ball'.")
    frames_THWC = read_video(file).frames_THWC[:1]
    folder = shelf() / name.lower()
    with replacing_folder(folder) as partial:
        write_video(partial / "picture.png", Video(frames_THWC, 8.0))
        write_json(partial / "character.json", {"name": name, "description": description.strip()})
    return find_character(name)


def find_character(name: str) -> Character:
    """The character of a name, whatever its capitals. Raises InputError, naming those there are."""
    folder = shelf() / name.lower()
    if not NAME.fullmatch(name) or not (folder / "character.json").is_file():
        names = [character.name for character in list_characters()]
        remedy = suggestion(name, names) if names else "add it with `mutoscope character add`."
        raise InputError(f"There is no character @{name}; {remedy}")
    return _read(folder)


def list_characters() -> list[Character]:
    """All characters, by name."""
    return [_read(path.parent) for path in sorted(shelf().glob("*/character.json"))]


def remove_character(name: str) -> None:
    """Forget a character. Raises InputError when there is none."""
    shutil.rmtree(find_character(name).picture.parent)


def named(prompt: str) -> tuple[str, tuple[Character, ...]]:
    """The prompt with descriptions for names, and the characters. Raises InputError for an unknown one."""
    found = {name.lower(): find_character(name) for name in MENTION.findall(prompt)}
    return MENTION.sub(lambda mention: found[mention[1].lower()].description, prompt), tuple(found.values())


def told(prompt: str, looks: Mapping[str, str]) -> str:
    """The prompt with what each name looks like in its place, whatever its capitals; who is not named comes last."""
    for name, look in looks.items():
        mention = re.compile(rf"@?(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE)
        words = look.replace("\\", r"\\")  # it is put in as it stands
        prompt, count = mention.subn(words, prompt)
        prompt = prompt if count else f"{prompt}, {look}"
    return prompt


def cast(request: Request) -> Request:
    """A request with its characters in words and, if one is named and nothing else begins the clip, with its picture.

    Beside pictures of later frames it is the first frame.
    """
    prompt, found = named(request.prompt)
    begins = request.image or request.references or any(frame.seconds == 0 for frame in request.at)
    request = replace(request, prompt=prompt)
    if begins or len(found) != 1:
        return request
    if request.last_image or request.at:
        return replace(request, image=found[0].picture)
    return replace(request, character=found[0].picture)


def cast_board(board: Storyboard, fps: float) -> Storyboard:
    """As `cast`, for every card; a picture goes to cards that begin a shot."""
    firsts = {shot.cards[0].at for shot in shots_of(board, fps)}
    cards = []
    for card in board.cards:
        prompt, found = named(card.prompt)
        bare = card.file is None and card.at in firsts
        picture = str(found[0].picture) if bare and len(found) == 1 else card.character
        cards.append(replace(card, prompt=prompt, character=picture))
    return replace(board, cards=tuple(cards))


@dataclass(frozen=True)
class _Note:
    name: str
    description: str


def _read(folder: Path) -> Character:
    path = folder / "character.json"
    note = from_dict(_Note, read_table(path), str(path))
    return Character(note.name, note.description, folder / "picture.png")
