"""SIGTERM is heeded at whatever moment it comes."""

import subprocess
import sys

from tests.conftest import ROOT

WITHIN_A_FINALISER = """
import os, signal, time
from steps.pipeline.errors import Terminated
from steps.pipeline.launcher import heed_sigterm

class Closing:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)  # where the handler runs; what it raises here is ignored by Python

heed_sigterm()
try:
    del_me = Closing()
    del del_me
    print("ignored", flush=True)
    signal.pause()
except Terminated:
    print("heeded")
"""


def test_sigterm_within_a_finaliser_is_heeded_after_it() -> None:
    done = subprocess.run([sys.executable, "-c", WITHIN_A_FINALISER], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.returncode) == (["ignored", "heeded"], 0), done.stderr
