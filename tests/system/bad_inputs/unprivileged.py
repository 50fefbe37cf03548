"""Ingest a folder without root's permissions: `python -m tests.system.bad_inputs.unprivileged FOLDER`."""

import ctypes
import os
import sys
from pathlib import Path

from segcore.errors import DataError
from segcore.ingest import catalog
from tests.support.tiny import params_for

# From linux/prctl.h and linux/capability.h.
_DROP_FROM_BOUNDING_SET, _OVERRIDE, _READ_SEARCH = 24, 1, 2


def drop() -> None:
    """Drop the capabilities that let root read everything; takes effect in the next program that is started.

    Raises:
        OSError: the capabilities cannot be dropped.
    """
    if os.geteuid() == 0:
        library = ctypes.CDLL(None, use_errno=True)
        for capability in (_OVERRIDE, _READ_SEARCH):
            if library.prctl(_DROP_FROM_BOUNDING_SET, capability, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "capabilities cannot be dropped")


def main() -> None:
    folder = Path(sys.argv[1])
    try:
        table = catalog.build(params_for(folder).data, folder, folder.parent / "work")
    except DataError as error:
        print("\t".join(("all", error.kind, error.what, error.remedy)))
        return
    for row in table[table["status"] == "quarantined"].itertuples():
        print("\t".join((row.image, row.kind, row.reason, row.remedy)))


if __name__ == "__main__":
    main()
