"""The errors of `pipeline` that a caller may catch, beside those of `igq`.

All are `igq.IgqError`: the command line shows them as one message and exits with 2.
"""

from igq.errors import IgqError


class DataError(IgqError):
    """Images that cannot be found, read, or divided as asked.

    >>> import pipeline
    >>> pipeline.search("demo", "studies/new", images="nowhere")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    pipeline.errors.DataError: `images` must be a folder, ... but got 'nowhere', which is none.
    """


class StudyError(IgqError):
    """A study that cannot be started, resumed or read.

    >>> import pipeline
    >>> pipeline.search("demo")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    pipeline.errors.StudyError: `out` must not hold a study yet, but studies/demo does: ...
    """


class ClusterError(IgqError):
    """Workers that cannot be reached.

    >>> raise ClusterError("Ray could not be reached at host:6379.")
    Traceback (most recent call last):
    pipeline.errors.ClusterError: Ray could not be reached at host:6379.
    """


class TrackingError(IgqError):
    """A tracking server or store that cannot be reached or written.

    >>> raise TrackingError("The store could not be written.")
    Traceback (most recent call last):
    pipeline.errors.TrackingError: The store could not be written.
    """
