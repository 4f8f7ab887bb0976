"""The most memory a process has held. A plain file: the processes that load a candidate run it
without the project on the path.
"""

import sys
from pathlib import Path


def peak_rss() -> int:
    """Highest resident set of this process since its ``exec``, in bytes.

    Linux keeps ``ru_maxrss`` across ``exec``, so a child would be given its parent's peak;
    ``VmHWM`` of ``/proc/self/status`` begins anew. Elsewhere ``ru_maxrss`` is what there is.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
