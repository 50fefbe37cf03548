"""Names of the architectures by their files, without importing torch."""

import re

from segcore import plugins

# of an instance network, in its file
_KIND = re.compile(r'^KIND\b.*=\s*"instance"$', re.MULTILINE)


def architecture_names() -> list[str]:
    """Sorted names of the architectures, from the files of segcore/models; torch is not imported."""
    return list(plugins.names("segcore.models"))


def instance_networks() -> list[str]:
    """Sorted names of the architectures that find objects: their files have the line `KIND = "instance"`."""
    return [name for name in architecture_names() if _KIND.search(plugins.source("segcore.models", name))]


def semantic_networks() -> list[str]:
    """Sorted names of the architectures that classify pixels."""
    return [name for name in architecture_names() if name not in instance_networks()]
