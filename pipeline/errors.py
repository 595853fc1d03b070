"""What a caller of `pipeline` may catch, beside what `igq` raises.

All are `igq.IgqError`: the command line shows them as one message and exits with 2.
"""

from igq.errors import IgqError


class DataError(IgqError):
    """Images that cannot be found, read, or divided as asked."""


class StudyError(IgqError):
    """A study that cannot be started, resumed or read."""


class ClusterError(IgqError):
    """Workers that cannot be reached."""


class TrackingError(IgqError):
    """A tracking server or store that cannot be reached or written."""
