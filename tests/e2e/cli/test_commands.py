"""Commands as scripts use them: exit codes, what is on stdout and what on stderr."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from .conftest import GATED  # type: ignore[import-not-found]
