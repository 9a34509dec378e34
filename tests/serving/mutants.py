"""Files that were made to harm a decoder, and a process that feeds many of them to the one of uploads.

Run as `python -m mutants COUNT SEED FOLDER URL`: every file is decoded by `ingest.main` in a fork of its own, which
spares the start of an interpreter but bounds itself just as the child of the server does. Prints one line of JSON.
"""

import gzip
import io
import json
import os
import random
import select
import signal
import struct
import sys
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

Mutate = Callable[[random.Random, bytearray], bytearray]

BOXES = (
    b"ftyp moov mvhd trak tkhd mdia mdhd minf stbl stsd stts stsz stsc stco ctts elst avcC mdat udta"
).split()
"""Boxes of an MP4 whose size, or whose first fields, are lied about."""

EXTREMES = (
    0,
    1,
    2,
    7,
    8,
    9,
    16,
    255,
    0x7FFF,
    0xFFFF,
    0x10000,
    0x7FFFFFF8,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
)


PATIENCE = float(os.environ.get("MUTOSCOPE_TEST_PATIENCE", "60"))
"""Seconds that one file may take; its processor time is bounded by the child itself."""


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG that says it is `width` x `height`, with the chunks given before its end."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


def packed(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


def zipped(size: int) -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("clip.mp4", bytes(size))
        return file.getvalue()


def traps(url: str) -> dict[str, bytes]:
    """What is no honest picture or clip: bombs, lies about sizes, and texts that send a reader to `url` or a file."""
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}/x.ts\n#EXT-X-ENDLIST\n".encode()
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><image href="{url}/x.png"/></svg>'
    manifest = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
        f'<Representation id="1" bandwidth="1"><BaseURL>{url}/x.mp4</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>"
    )
    brand = struct.pack(">I", 16) + b"ftypisom\0\0\0\0"
    wide_gif = b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;"
    small = chunk(b"IDAT", packed(8 * 25))
    return {
        "empty": b"",
        "text": b"no picture at all",
        "playlist": playlist,
        "playlist-behind-a-brand": brand + playlist,
        "playlist-of-files": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "playlist-with-a-key": f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{url}/key"\n'.encode() + playlist,
        "concat": f"ffconcat version 1.0\nfile '{url}/x.mp4'\nfile /etc/passwd\n".encode(),
        "manifest": manifest.encode(),
        "session": f"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\na=control:{url}".encode(),
        "svg": svg.encode(),
        "svg-entities": b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><svg>&a;</svg>',
        "zip-bomb": zipped(20_000_000),
        "gzip-bomb": gzip.compress(bytes(20_000_000)),
        "png-of-a-terapixel": png(1_000_000, 1_000_000, chunk(b"IDAT", packed(1000))),
        "png-at-the-limit": png(7071, 7071, chunk(b"IDAT", packed(7071 * 21214))),
        "png-cut-at-the-limit": png(7071, 7071, chunk(b"IDAT", packed(1000))),
        "png-with-more-than-it-says": png(8, 8, chunk(b"IDAT", packed(200_000_000))),
        "png-with-a-text-bomb": png(8, 8, chunk(b"zTXt", b"comment\0\0" + packed(400_000_000)), small),
        "png-with-a-profile-bomb": png(8, 8, chunk(b"iCCP", b"profile\0\0" + packed(400_000_000)), small),
        "gif-of-many-pixels": wide_gif,
        "webp-that-lies": b"RIFF\xff\xff\xff\xffWEBPVP8X" + bytes(18),
        "jpeg-of-nothing": b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(50),
        "boxes-in-boxes": brand + nested(2000),
        "elements-without-end": b"\x1a\x45\xdf\xa3\x80"
        + b"\x18\x53\x80\x67\x01"
        + b"\xff" * 7
        + b"\xec\x80" * 5000,
    }


def nested(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = struct.pack(">I", len(data) + 8) + b"moov" + data
    return data


def flipped(rng: random.Random, data: bytearray) -> bytearray:
    for _ in range(rng.choice((1, 3, 10, 100))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def cut(rng: random.Random, data: bytearray) -> bytearray:
    return data[: rng.randrange(1, max(2, len(data)))]


def holed(rng: random.Random, data: bytearray) -> bytearray:
    start = rng.randrange(len(data))
    del data[start : start + rng.randrange(1, 200)]
    return data or bytearray(b"\0")


def doubled(rng: random.Random, data: bytearray) -> bytearray:
    start = rng.randrange(len(data))
    piece = data[start : start + rng.randrange(1, 2000)]
    return data[:start] + piece * rng.choice((2, 20, 200)) + data[start:]


def blotted(rng: random.Random, data: bytearray) -> bytearray:
    start = rng.randrange(len(data))
    data[start : start + 16] = bytes([rng.choice((0, 255, 128))]) * len(data[start : start + 16])
    return data


def overstated(rng: random.Random, data: bytearray) -> bytearray:
    """One number of 16 or 32 bits, in either order of bytes, becomes an extreme one."""
    width, order = rng.choice((2, 4)), rng.choice(("<", ">"))
    if len(data) > width:
        place = rng.randrange(len(data) - width)
        value = rng.choice(EXTREMES) & (256**width - 1)
        data[place : place + width] = struct.pack(order + ("H" if width == 2 else "I"), value)
    return data


def lying(rng: random.Random, data: bytearray) -> bytearray:
    """A box of an MP4 lies about its size, its counts or its sides; other files lie somewhere."""
    places = [place for name in BOXES if (place := data.find(name)) >= 4]
    if not places:
        return overstated(rng, data)
    place = rng.choice(places) + rng.choice((-4, -4, 4, 8, 12, 16, 28, 32, 80, 84))
    data[place : place + 4] = struct.pack(">I", rng.choice(EXTREMES))
    return data


MUTATIONS: tuple[Mutate, ...] = (flipped, cut, holed, doubled, blotted, overstated, lying)


def repaired(data: bytearray) -> bytes:
    """With the check sums of a PNG's chunks made right again, so that a decoder looks at what they hold."""
    place = 8
    while data.startswith(b"\x89PNG") and place + 12 <= len(data):
        size = int.from_bytes(data[place : place + 4])
        end = place + 8 + size
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[place + 4 : end]))
        place = end + 4
    return bytes(data)


def mutants(samples: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """`count` spoilt copies of the samples, the same for the same seed."""
    rng = random.Random(seed)
    for number in range(count):
        data = bytearray(samples[number % len(samples)])
        for _ in range(rng.choice((1, 1, 2, 4))):
            data = rng.choice(MUTATIONS)(rng, data)
        yield repaired(data) if rng.random() < 0.8 else bytes(data)


def samples(folder: Path) -> list[bytes]:
    """A small clip or picture of every kind that is read."""
    import numpy as np

    from mutoscope.video import Video, write_video

    moving = Video(np.random.default_rng(0).integers(0, 255, (6, 32, 48, 3), np.uint8), 8.0)
    still = Video(moving.frames_THWC[:1], 8.0)
    files = [("a.mp4", moving), ("a.webm", moving), ("a.gif", moving), ("a.png", still), ("a.jpg", still)]
    files += [("a.mp4", moving), ("a.webp", still)]  # clips are the richer target: twice as often
    return [write_video(folder / name, video).read_bytes() for name, video in files]


def feed(data: bytes, kind: str) -> tuple[str, int, float]:
    """What became of a file (a word), the memory in bytes and the processor time in seconds that it took."""
    from mutoscope.serving import ingest

    Path(ingest.RAW).write_bytes(data)
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(out)
        os.dup2(into, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        code = 1
        try:
            ingest.main("picture" if kind == "picture" else "video", 8.0)
            sys.stdout.flush()
            code = 0
        finally:
            os._exit(code)
    os.close(into)
    said = _all_of(out, time.monotonic() + PATIENCE)
    if said is None:
        os.kill(child, signal.SIGKILL)
    os.close(out)
    return _outcome(child, said)


def _all_of(pipe: int, until: float) -> bytes | None:
    """What comes through a pipe until its other end is closed; None when that takes too long."""
    said = b""
    while time.monotonic() < until:
        if select.select([pipe], [], [], 1.0)[0]:
            piece = os.read(pipe, 65536)
            if not piece:
                return said
            said += piece
    return None


def _outcome(child: int, said: bytes | None) -> tuple[str, int, float]:
    _, status, used = os.wait4(child, 0)
    memory, seconds = used.ru_maxrss * 1024, used.ru_utime + used.ru_stime
    if said is None:
        return "hang", memory, seconds
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}", memory, seconds
    if os.WEXITSTATUS(status):
        return "exception", memory, seconds
    return ("refused" if "error" in json.loads(said) else "taken"), memory, seconds


def main(count: int, seed: int, folder: Path, url: str) -> None:
    import mutoscope.video  # noqa: F401  before the forks, which then need not

    os.chdir(folder)
    outcomes: Counter[str] = Counter()
    memory, seconds, odd = 0, 0.0, []
    spoilt = ((str(number), data) for number, data in enumerate(mutants(samples(folder), count, seed)))
    for number, (name, data) in enumerate(chain(traps(url).items(), spoilt)):
        kind = "picture" if data[:1] in (b"\x89", b"\xff", b"R") else "video" if number % 7 else "picture"
        outcome, took_bytes, took = feed(data, kind)
        outcomes[outcome if not name[0].isalpha() else f"trap {outcome}"] += 1
        memory, seconds = max(memory, took_bytes), max(seconds, took)
        if outcome not in ("taken", "refused"):
            odd.append(f"{name}: {outcome}")
            (folder / f"odd-{name}").write_bytes(data)
    print(json.dumps({"outcomes": outcomes, "memory": memory, "seconds": seconds, "odd": odd[:20]}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
