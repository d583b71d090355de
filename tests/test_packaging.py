"""The plugin is found when installed from a wheel and when installed editable, from any working directory."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[1]

# Without the checkout on the path, as in an environment that has only the wheel.
FIND = """
import sys
sys.path[:] = [entry for entry in sys.path if entry != sys.argv[1]]
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
import whatsapp_egress
print(whatsapp_egress.__file__)
for maker in getPlugins(IServiceMaker):
    if maker.tapname.startswith("whatsapp-"):
        print(maker.tapname, maker.options.__module__)
"""


class Installed(SynchronousTestCase):
    def setUp(self) -> None:
        self.elsewhere = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.elsewhere)

    def run_there(self, *command: str, path: Path | None = None) -> str:
        environment = {"PATH": "/usr/bin:/bin", **({"PYTHONPATH": str(path)} if path else {})}
        done = subprocess.run(
            command, cwd=self.elsewhere, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    def test_an_editable_install_has_both_services_and_their_help(self) -> None:
        twistd = str(Path(sys.executable).with_name("twistd"))
        listed = self.run_there(twistd, "--help")
        assert "whatsapp-egress" in listed
        assert "whatsapp-sandbox" in listed
        assert "TENANT_SERVICE_URL" in self.run_there(twistd, "whatsapp-egress", "--help")

    def test_a_wheel_has_the_plugin_the_table_and_every_package(self) -> None:
        # From a copy, for setuptools leaves a build folder behind.
        source = self.elsewhere / "source"
        source.mkdir()
        for name in ("setup.py", "pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, source)
        for name in ("whatsapp_egress", "twisted"):
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
        self.run_there(*pip, "--no-index", "--wheel-dir", str(self.elsewhere), str(source))
        (wheel,) = self.elsewhere.glob("*.whl")
        unpacked = self.elsewhere / "unpacked"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
        found = self.run_there(sys.executable, "-c", FIND, str(ROOT), path=unpacked).split()
        assert found[0].startswith(str(unpacked))
        assert set(found[1:]) >= {"whatsapp-egress", "whatsapp-sandbox", "whatsapp_egress.tap"}
        (scripts,) = unpacked.glob("*.dist-info/entry_points.txt")
        assert "whatsapp-egress = whatsapp_egress.cli.main:main" in scripts.read_text()
        packed = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*.*")}
        kept = {
            str(path.relative_to(ROOT))
            for folder in ("whatsapp_egress", "twisted")
            for path in (ROOT / folder).rglob("*.*")
            if path.suffix in (".py", ".json", ".html", ".css", ".js", ".svg", ".txt")
        }
        assert kept <= packed
