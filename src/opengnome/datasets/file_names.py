"""Names of data files, which may end in two suffixes."""


def stem(name: str) -> str:
    """A file's name without its suffix, ``.gz`` taken off first: ``entries`` for ``entries.json.gz``."""
    base = name.removesuffix(".gz")
    return base.rpartition(".")[0] or base
