"""Locks that a forked child takes anew: threads that may hold the parent's do not exist there."""

import os
import threading
import weakref


class ForkSafe:
    """Has a lock that is free in every forked child."""

    def __init__(self) -> None:
        self.renew_lock()
        LOCKED.add(self)

    def renew_lock(self) -> None:
        """Take a lock that no thread holds."""
        self.lock = threading.Lock()


LOCKED: "weakref.WeakSet[ForkSafe]" = weakref.WeakSet()


def _renew_locks() -> None:
    for holder in LOCKED:
        holder.renew_lock()


os.register_at_fork(after_in_child=_renew_locks)
