"""A small file system that a test fills or makes read-only, seen by its own programs alone."""

import subprocess
from pathlib import Path

NAMESPACES = {
    ("--user", "--map-root-user", "--mount"): ("--user", "--preserve-credentials", "--mount"),
    ("--mount",): ("--mount",),  # for root, where the system allows nobody the first
}
"""How one begins, and how a program joins it."""


class CannotMountError(Exception):
    """Why there is no such file system here."""


class OwnMount:
    """A tmpfs in a namespace of mounts, which the system takes away with the process that holds it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        refusals = []
        for begin, self._join in NAMESPACES.items():
            hold = f"mount -t tmpfs none '{folder}' && echo mounted && exec cat"  # until its input ends, as with ours
            self._holder = subprocess.Popen(
                ["unshare", *begin, "sh", "-c", hold],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert self._holder.stdout is not None
            if self._holder.stdout.readline():
                break
            refusals.append(self._holder.communicate()[1].strip())
        else:
            raise CannotMountError(f"a file system of its own cannot be mounted here: {'; '.join(refusals)}")
        self.folder = folder
        self.outside = Path(f"/proc/{self._holder.pid}/root{folder}")
        """The same folder for those that have not joined."""

    @property
    def inside(self) -> list[str]:
        """In front of a command that is to see what is mounted."""
        return ["nsenter", f"--target={self._holder.pid}", *self._join]

    def remount(self, options: str) -> None:
        """With other options; those that it has are left out, as they name a user who is not known inside."""
        self._run("mount", "-t", "tmpfs", "-o", f"remount,{options}", "none", str(self.folder))

    def bind(self) -> None:
        """Lay the folder over itself: what is opened from now on has options of its own (``remount("bind,ro")``)."""
        self._run("mount", "--bind", str(self.folder), str(self.folder))

    def _run(self, *command: str) -> None:
        subprocess.run([*self.inside, *command], check=True)

    def close(self) -> None:
        """Let it go."""
        self._holder.communicate()
