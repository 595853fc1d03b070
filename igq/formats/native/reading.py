"""Read an artifact, and say what was looked at."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from igq.allocation import Allocation
from igq.errors import ArtifactError, IgqError
from igq.formats.drafts import SEAL, check_seal, is_sealed
from igq.formats.integrity import (
    DamagedError,
    check_files,
    check_sealed,
    read_json,
    read_object,
)
from igq.formats.native.compat import READABLE, SEALED, upgraded
from igq.formats.native.manifest import (
    FORMAT,
    MANIFEST,
    TENSORS,
    Described,
    allocation_of,
    described,
)
from igq.formats.native.record import CARD, VIEWS, check_notes, views
from igq.formats.native.rules import skeleton
from igq.formats.native.tensors import (
    parameters_from,
    quantizer_from,
    read_tensors,
    specs_of,
    weight_from,
)
from igq.quantized import assemble, with_rotated
from igq.settings import plain
from igq.vit import layers, remake


@dataclass(frozen=True)
class Artifact:
    """A model read back from disk, and what was noted beside it.

    >>> import igq, tempfile, torch
    >>> vit = igq.create("vit_tiny_patch16_224", {"img_size": 32, "depth": 1})
    >>> images = torch.rand(4, 3, 32, 32)
    >>> candidates = igq.fit(igq.observe(vit, images), num_groups=(2, 4), bits=8)
    >>> quantized = igq.quantize(vit, candidates.select(igq.uniform(candidates.layers, 4)), 8)
    >>> path = igq.save(quantized, tempfile.mkdtemp() + "/vit_w8a8", notes={"seed": 3})
    >>> artifact = igq.load(path)
    >>> str(artifact.allocation["blocks.0.mlp.fc1"]), artifact.notes
    ('4', {'seed': 3})
    """

    model: nn.Module
    allocation: Allocation
    notes: Mapping[str, Any]


@dataclass(frozen=True)
class Verified:
    """The checks that an artifact has passed.

    >>> Verified(4, ("tensors",), ()).sealed
    False
    """

    schema: int
    checks: tuple[str, ...]
    unlisted: tuple[str, ...]
    """Files of the folder that the manifest does not name, and that nothing was checked of."""
    kind: str = "native"
    """The format."""

    @property
    def sealed(self) -> bool:
        """Whether each file was compared with a digest."""
        return self.schema >= SEALED


def load(path: str | Path) -> Artifact:
    """Read a quantized model back; its predictions are the same, bit for bit.

    Files are compared with their digests, and values with the rules of the model, before anything
    large is allocated. Schemas before 5 have no digests.

    Raises:
        ArtifactError: the folder is not an artifact, is damaged, or has a schema of another time.

    >>> import igq, tempfile, torch
    >>> vit = igq.create("vit_tiny_patch16_224", {"img_size": 32, "depth": 1})
    >>> images = torch.rand(4, 3, 32, 32)
    >>> candidates = igq.fit(igq.observe(vit, images), num_groups=(2, 4), bits=8)
    >>> quantized = igq.quantize(vit, candidates.select(igq.uniform(candidates.layers, 4)), 8)
    >>> path = igq.save(quantized, tempfile.mkdtemp() + "/vit_w8a8", notes={"seed": 3})
    >>> torch.equal(igq.load(path).model(images), quantized(images))
    True
    """
    folder = Path(path)
    try:
        return _load(folder, _manifest(folder))
    except ArtifactError:
        raise
    except (DamagedError, IgqError, OSError) as error:
        raise _unreadable(folder, error) from error


def verify(path: str | Path) -> Verified:
    """Check everything that can be checked of an artifact without images.

    Raises:
        ArtifactError: the folder is not an artifact, is damaged, or has a schema of another time.

    >>> import igq
    >>> from igq.formats import verify
    >>> verify("nowhere")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    igq.errors.ArtifactError: nowhere could not be read as an artifact: manifest.json: ...
    """
    folder = Path(path)
    if is_sealed(folder):  # another format, of which igq knows the files alone
        sealed = check_seal(folder)
        return Verified(SEALED, ("the size and digest of each file",), (), sealed["kind"])
    try:
        manifest = _manifest(folder)
        model = _load(folder, manifest).model
        there = sorted(file.name for file in folder.iterdir())
    except (DamagedError, IgqError, OSError) as error:
        raise _unreadable(folder, error) from error
    schema = manifest["schema"]
    named = {MANIFEST, TENSORS, *manifest.get("files", ())}
    unlisted = tuple(name for name in there if name not in named)
    return Verified(schema, _checks(schema, manifest, model), unlisted)


def _unreadable(folder: Path, error: Exception) -> ArtifactError:
    return ArtifactError(f"{folder} could not be read as an artifact: {error}")


def _manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder whose files have the digests that it notes."""
    manifest = read_object(folder, MANIFEST)
    if manifest.get("format") == SEAL:
        kind = check_seal(folder)["kind"]
        raise ArtifactError(
            f"{folder} must be of the format native, but is {kind}; run that in onnxruntime "
            "(docs/how-to/runtime.md), or export native."
        )
    if manifest.get("format") != FORMAT:
        raise DamagedError(
            MANIFEST, f"`format` must be {FORMAT}, but is {manifest.get('format')!r:.40}"
        )
    schema = manifest.get("schema")
    if type(schema) is not int or schema not in READABLE:
        known = " or ".join(map(str, READABLE))
        raise DamagedError(
            MANIFEST,
            f"`schema` must be {known}, but is {schema!r:.40}; use the version of igq-vit that "
            "wrote it",
        )
    if schema >= SEALED:
        check_sealed(MANIFEST, manifest)
        check_files(folder, MANIFEST, manifest.get("files"), (TENSORS, CARD, *VIEWS))
    return manifest


def _load(folder: Path, manifest: Mapping[str, Any]) -> Artifact:
    sealed = manifest["schema"] >= SEALED
    found = described(_unsealed(manifest) if sealed else upgraded(manifest))
    meta = skeleton(found, earlier=not sealed)
    check_notes(found, meta)
    if sealed:
        _check_views(folder, manifest, found, meta)
    tensors = read_tensors(folder, specs_of(found, meta, packed=sealed))
    model = rebuilt(found, meta, tensors, packed=sealed)
    allocation = allocation_of(model)
    if not sealed and manifest.get("allocation") != plain(allocation):
        raise DamagedError(MANIFEST, "`allocation` must be that of the quantizers, but is another")
    return Artifact(model, allocation, found.notes)


def rebuilt(
    found: Described, meta: nn.Module, tensors: Mapping[str, Tensor], packed: bool
) -> nn.Module:
    """Return the model of a description with its tensors."""
    stored = parameters_from(tensors)
    weights = {
        name: weight_from(tensors, name, bits, meta.get_parameter(f"{name}.weight").shape, packed)
        for name, bits in found.weights.items()
    }
    fitted = {name: quantizer_from(tensors, name, a) for name, a in found.activations.items()}
    model = remake(found.architecture).to(next(iter(stored.values())))
    made = assemble(with_rotated(model, found.rotated), fitted, weights)
    for name, parameter in made.named_parameters():
        parameter.data = stored[name]
    return made.requires_grad_(False)


def _unsealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in manifest.items() if key not in ("files", "digest")}


def _check_views(
    folder: Path, manifest: Mapping[str, Any], found: Described, meta: nn.Module
) -> None:
    """Refuse files that say something else than the manifest does."""
    if TENSORS not in manifest["files"]:
        raise DamagedError(MANIFEST, f"`files` must name {TENSORS}, but does not")
    expected = views(manifest, layers(meta))
    needed = {TENSORS, CARD, *expected}
    if manifest["files"].keys() != needed:
        odd = sorted(manifest["files"].keys() ^ needed)[0]
        raise DamagedError(MANIFEST, f"`files` must name every file, but differs in {odd}")
    for name, content in expected.items():
        if read_json(folder, name) != content:
            raise DamagedError(name, f"it must say what {MANIFEST} does, but differs from it")


def _checks(schema: int, manifest: Mapping[str, Any], model: nn.Module) -> tuple[str, ...]:
    described_layers = len(manifest["activations"])
    parameters = sum(1 for _ in model.parameters())
    files = manifest.get("files", {})
    digests = (
        (f"the digest of {MANIFEST}, and size and digest of {', '.join(sorted(files))}",)
        if schema >= SEALED
        else ()
    )
    agreement = (f"that the other files say what {MANIFEST} does",) if schema >= SEALED else ()
    return (
        *digests,
        f"bits, slices, groups and bounds of {described_layers} layers, "
        f"and codes and scales of {len(manifest['weights'])} weights",
        f"type, shape and values of {parameters} parameters",
        *agreement,
    )
