"""Read by every Python that starts with this folder on its path: the campaign package without its front door.

A process that only runs cheap units need not import torch. What is tested comes from its own file and is the real
thing.
"""

import sys
import types
from pathlib import Path

import opengnome

_package = types.ModuleType("opengnome.campaign")
_package.__path__ = [str(Path(opengnome.__file__).parent / "campaign")]
sys.modules["opengnome.campaign"] = _package
