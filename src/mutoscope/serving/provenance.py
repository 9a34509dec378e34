"""Where a clip came from, in three ways: a signed C2PA manifest, a sidecar with its hash, a number in its pictures.

The manifest (c2pa.org, specification 2.2) is written last, since any later change of the file breaks it: that is its
use. It is signed with a key of this server under a CA of its own, both made on first use and kept in the data folder;
whoever trusts the CA's certificate can check that this server made a clip, everybody else that it was not changed
since. Prompts stay private: the manifest holds their hash. The number is a hash of the recipe inside the file.
"""

import contextlib
import datetime
import fcntl
import hashlib
import importlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mutoscope import __version__
from mutoscope.config import write_json
from mutoscope.errors import InputError
from mutoscope.files import replacing, replacing_folder
from mutoscope.generation.request import file_sha256
from mutoscope.video import read_recipe, read_video
from mutoscope.watermark import find, number_of_record

YEARS = 30
"""Certificates last so long, as no timestamp authority is asked."""

TYPES = {".mp4": "video/mp4", ".mov": "video/quicktime"}
GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
STATEMENT = "org.mutoscope.generation"
"""Label of our own assertion."""

Relation = Literal["remixed_from", "extended_from", "edited_from"]
State = Literal["holds", "unknown signer", "broken", "absent"]


@dataclass(frozen=True)
class Authority:
    """A signing key, its certificates (the CA's last) and the CA's alone, all as PEM."""

    certificates: str
    key: str
    anchor: str


@dataclass(frozen=True)
class Source:
    """A clip that another was made from; `path` is its file, if it is still there."""

    relation: Relation
    id: str
    path: Path | None = None


@dataclass(frozen=True)
class Manifest:
    """What a file's C2PA manifest says, and whether it holds; `reasons` are the codes of what does not."""

    state: State
    reasons: tuple[str, ...]
    statement: dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """One trace that a clip carries: its kind, whether it holds, and a sentence."""

    kind: Literal["recipe", "sidecar", "c2pa", "watermark"]
    state: State
    says: str


# --- who signs ------------------------------------------------------------------------------------


def open_authority(folder: Path) -> Authority | None:
    """The signer in a folder, made on first use (keys readable by their owner only).

    None without the extra `provenance`. Raises InputError when the folder cannot be written.
    """
    if _c2pa() is None:
        return None
    with _alone(folder):
        if not (folder / "signer.pem").exists():
            _make(folder)
    signer, anchor = (folder / "signer.pem").read_text(), (folder / "ca.pem").read_text()
    return Authority(signer + anchor, (folder / "signer.key").read_text(), anchor)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time makes the keys."""
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(folder: Path) -> None:
    """Make a CA and a signer under it: ECDSA on P-256, as the C2PA trust list wants its certificates."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(common: str) -> x509.Name:
        parts = ((NameOID.ORGANIZATION_NAME, "Mutoscope"), (NameOID.COMMON_NAME, common))
        return x509.Name([x509.NameAttribute(kind, text) for kind, text in parts])

    def certificate(is_ca: bool) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        key = (ca_key if is_ca else key_of_signer).public_key()
        return (
            x509.CertificateBuilder()
            .subject_name(ours if is_ca else name("Mutoscope signer of this server"))
            .issuer_name(ours)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=365 * YEARS))
            .add_extension(x509.BasicConstraints(is_ca, 0 if is_ca else None), critical=True)
            .add_extension(
                x509.KeyUsage(not is_ca, False, False, False, False, is_ca, is_ca, False, False),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
            )
        )

    ca_key, key_of_signer = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ours = name(f"Mutoscope CA {os.urandom(4).hex()}")
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
    leaf = certificate(False).add_extension(usage, critical=False).sign(ca_key, hashes.SHA256())
    with replacing_folder(folder) as partial:
        partial.chmod(0o700)
        for stem, key, signed in (
            ("ca", ca_key, certificate(True).sign(ca_key, hashes.SHA256())),
            ("signer", key_of_signer, leaf),
        ):
            secret = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            descriptor = os.open(partial / f"{stem}.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secret)
            (partial / f"{stem}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))


# --- writing --------------------------------------------------------------------------------------


def seal(folder: Path, job: str, authority: Authority | None, sources: tuple[Source, ...] = ()) -> None:
    """Sign `folder`/video.mp4 and complete recipe.json beside it: nothing may change either afterwards.

    Without an authority the sidecar alone is completed. Raises InputError when the disk is full.
    """
    video, sidecar = folder / "video.mp4", folder / "recipe.json"
    told = json.loads(sidecar.read_text())
    number = f"{number_of_record(read_recipe(video) or {}):08x}"
    lineage = [{"relation": source.relation, "id": source.id} for source in sources]
    if authority is not None:
        order = told.get("order", {})
        statement = {
            "job": job,
            "model": told["model"],
            "seed": order.get("seed"),
            "prompt_sha256": hashlib.sha256(str(order.get("prompt", "")).encode()).hexdigest(),
            "watermark": number,
            "lineage": lineage,
        }
        sign(video, authority, statement, sources)
    beyond = {"job": job, "watermark": number, "lineage": lineage, "c2pa": authority is not None}
    write_json(sidecar, {**told, "sha256": file_sha256(video), **beyond})


def sign(
    path: Path, authority: Authority, statement: dict[str, Any], sources: tuple[Source, ...] = ()
) -> None:
    """Put a signed manifest into an MP4 or MOV file; sources that are still there go in with their own."""
    c2pa = _c2pa()
    if c2pa is None:
        raise InputError(
            'Signing needs the extra "provenance"; install it: `pip install mutoscope[provenance]`.'
        )
    action = {
        "action": "c2pa.created",
        "digitalSourceType": GENERATED,
        "softwareAgent": {"name": "Mutoscope", "version": __version__},
    }
    manifest = {
        "claim_generator_info": [{"name": "Mutoscope", "version": __version__}],
        "title": path.name,
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [action]}},
            {"label": STATEMENT, "data": statement},
        ],
    }
    signer = c2pa.Signer.from_info(
        c2pa.C2paSignerInfo("es256", authority.certificates.encode(), authority.key.encode(), None)
    )
    kind = TYPES[path.suffix.lower()]
    with signer, c2pa.Builder(manifest) as builder, replacing(path) as partial:
        for source in sources:
            if source.path is not None and source.path.exists():
                with source.path.open("rb") as file:
                    builder.add_ingredient({"title": source.id, "relationship": "inputTo"}, kind, file)
        with path.open("rb") as before, partial.open("w+b") as after:
            builder.sign(signer, kind, before, after)


# --- reading --------------------------------------------------------------------------------------


def read_manifest(path: Path, anchors: str = "") -> Manifest | None:
    """The C2PA manifest of a file, None when it has none; `anchors` are certificates (PEM) of CAs to be trusted.

    Asks no network. Raises InputError without the extra `provenance`.
    """
    c2pa = _c2pa()
    if c2pa is None:
        raise InputError(
            'Reading a manifest needs the extra "provenance"; install it: `pip install mutoscope[provenance]`.'
        )
    settings: dict[str, Any] = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
    if anchors:
        settings["trust"] = {"trust_anchors": anchors}
    try:
        with (
            path.open("rb") as file,
            c2pa.Context.from_dict(settings) as context,
            c2pa.Reader(TYPES.get(path.suffix.lower(), "video/mp4"), file, context=context) as reader,
        ):
            told, state = json.loads(reader.json()), reader.get_validation_state()
    except c2pa.C2paError as error:
        if isinstance(error, c2pa.C2paError.ManifestNotFound):
            return None
        return Manifest("broken", (str(error).splitlines()[0][:120],), {})
    active = told["manifests"][told["active_manifest"]]
    ours = [item["data"] for item in active.get("assertions", []) if item["label"] == STATEMENT]
    failures = told.get("validation_results", {}).get("activeManifest", {}).get("failure", [])
    reasons = tuple(item["code"] for item in failures)
    states: dict[str, State] = {"Trusted": "holds", "Valid": "unknown signer"}
    return Manifest(states.get(state, "broken"), reasons, ours[0] if ours else {})


def trace(path: Path, anchors: str = "") -> list[Finding]:
    """Everything that a clip tells of its origin, and whether it holds. Raises InputError for no video."""
    record = read_recipe(path)
    video = read_video(path, strict=False)
    manifest = read_manifest(path, anchors) if _c2pa() is not None else None
    mark = find(video.frames_THWC, video.fps)
    findings = [_sidecar(path), _of_manifest(manifest)]
    claimed = str(manifest.statement.get("watermark", "")) if manifest is not None else ""
    expected = "" if record is None else f"{number_of_record(record):08x}"
    found = "" if mark is None else f"{mark.number:08x}"
    if record is None:
        findings.insert(0, Finding("recipe", "absent", "no recipe inside"))
    elif (found and found != expected) or (claimed and claimed != expected):
        findings.insert(0, Finding("recipe", "broken", "not the recipe that this clip was made with"))
    else:
        name = record.get("model", {}).get("name", "?") if isinstance(record.get("model"), dict) else "?"
        held = "as its pictures or its manifest confirm" if found or claimed else "which nothing confirms"
        state: State = "holds" if found or claimed else "unknown signer"
        findings.insert(0, Finding("recipe", state, f"made by {name}, {held}"))
    if mark is None:
        missing: State = "broken" if claimed else "absent"
        findings.append(
            Finding("watermark", missing, f"none found{', though there was one' if claimed else ''}")
        )
    elif claimed and claimed != found:
        findings.append(Finding("watermark", "broken", f"{found}, but the manifest names {claimed}"))
    else:
        findings.append(Finding("watermark", "holds", f"{found}, certainty {mark.certainty:g}"))
    return findings


def _of_manifest(manifest: Manifest | None) -> Finding:
    if manifest is None:
        reason = (
            "no manifest inside" if _c2pa() is not None else 'not looked at, without the extra "provenance"'
        )
        return Finding("c2pa", "absent", reason)
    job = manifest.statement.get("job", "no job of ours")
    lineage = "".join(f", {item['relation']} {item['id']}" for item in manifest.statement.get("lineage", []))
    if manifest.state == "broken":
        return Finding("c2pa", "broken", f"changed after it was signed ({', '.join(manifest.reasons)})")
    words = {"holds": "signed by a server you trust", "unknown signer": "unchanged since somebody signed it"}
    return Finding("c2pa", manifest.state, f"{words[manifest.state]}; {job}{lineage}")


def _sidecar(path: Path) -> Finding:
    """The hash in `recipe.json` (of a server's folder) or NAME.json beside the clip."""
    for sidecar in (path.with_name("recipe.json"), path.with_suffix(".json")):
        try:
            told = json.loads(sidecar.read_text())
            expected = told["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if expected == file_sha256(path):
            return Finding("sidecar", "holds", f"{sidecar.name} has the hash of this very file")
        return Finding("sidecar", "broken", f"{sidecar.name} has the hash of another file")
    return Finding("sidecar", "absent", "no sidecar beside it")


def _c2pa() -> Any:
    """The library, None when it is not installed."""
    try:
        return importlib.import_module("c2pa")
    except ImportError:
        return None
