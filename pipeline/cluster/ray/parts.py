"""Parts of work on the workers of a Ray cluster, as Ray's tasks."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from igq.progress import Progress, silent
from pipeline.cluster.placement import Share
from pipeline.cluster.ray.watching import LOOK_SECONDS, Watch
from pipeline.errors import ClusterError
from pipeline.evaluation.work import Part

RETRIES = 2
"""Times that a part is begun again because its worker was lost."""


def parts_on_ray(
    shared: Any, parts: Sequence[Part], watch: Watch, share: Share, progress: Progress
) -> Iterator[tuple[Part, Any]]:
    """Yield each part with its result, as many at once as there is room, long ones first.

    Ray is connected.

    Raises:
        ClusterError: workers were lost again and again, or the head.
    """
    kept = ray.put(shared)
    task = ray.remote(_compute)
    queue = sorted(parts, key=lambda part: part.passes)
    total, done = sum(part.passes for part in parts), 0.0
    running: dict[Any, Part] = {}
    while queue or running:
        while queue and len(running) < max(1, watch.room()):
            part = queue.pop()
            running[task.options(**_options(share, part)).remote(kept, part, share)] = part
        ended = _first_ended(running, watch)
        part = running.pop(ended)
        result = _result(ended, part)
        done += part.passes
        progress(done / total)
        yield part, result


def _options(share: Share, part: Part) -> dict[str, Any]:
    """Return what Ray keeps for a part, and how often it begins it again."""
    memory = share.memory.correcting if part.corrects else share.memory.each
    kept = {"num_cpus": share.cpus, "num_gpus": share.gpus, "memory": memory or None}
    return {**kept, "max_retries": RETRIES}


def _first_ended(running: Iterable[Any], watch: Watch) -> Any:
    """Wait until a part ends; raise where the cluster does."""
    while not (ended := ray.wait(list(running), timeout=LOOK_SECONDS)[0]):
        watch.check()
    return ended[0]


def _result(ended: Any, part: Part) -> Any:
    try:
        return ray.get(ended)
    except RayTaskError as error:
        raise error.as_instanceof_cause() from None
    except RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise ClusterError(f"a worker must end {part.name}, but was lost: {reason}") from error


def _compute(shared: Any, part: Part, share: Share) -> Any:
    torch.set_num_threads(share.threads)
    return part.compute(shared, part.argument, "cuda" if share.gpus else "cpu", silent)
