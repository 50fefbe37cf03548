"""One step of the pipeline a file: paths in, paths out, each a command of its own."""

import os

if (
    "SEGFLOW_WARM" in os.environ
):  # a stage that a flow has DVC run: work it need not load torch for (tasks/forkserver/client.py)
    from tasks.forkserver import client

    client.hand_over()
