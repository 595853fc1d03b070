"""Seals for a study that has none: every file of it as it is, before the study goes on."""

from pathlib import Path

from pipeline.preparation.parts.cache import load_tensors, save_tensors
from pipeline.preparation.study import Study
from pipeline.proposals import seal_journal
from pipeline.study.folder import Folder
from pipeline.study.seals import companions, name_of, read_sealed, write_sealed


def seal_old(study: Study, nonce: str) -> None:
    """Seal the files of a study of before, whose definition is to be written with this nonce.

    The definition comes last, so that a study whose sealing was interrupted is sealed again.

    Raises:
        StudyError: a file is damaged, or the folder cannot be written.
    """
    folder = study.folder
    if not folder.study.exists() or name_of(folder.study) is not None:
        return
    name = f"{study.definition.key}-{nonce}"
    for path in (folder.final, folder.result, folder.system, folder.tracking):
        if path.exists():
            write_sealed(path, read_sealed(path), name)
    if folder.validation.exists():
        files = companions([folder.final, folder.result])
        content = read_sealed(folder.validation) | {"files": files}
        write_sealed(folder.validation, content, name)
    if folder.journal.exists():
        seal_journal(folder.journal, name)
    for path in _entries(folder):
        if path.suffix == ".json":
            write_sealed(path, read_sealed(path), path.stem)
        else:
            save_tensors(path, load_tensors(path))


def _entries(folder: Folder) -> list[Path]:
    every = folder.cache.iterdir() if folder.cache.is_dir() else ()
    return sorted(path for path in every if path.suffix in (".json", ".safetensors"))
