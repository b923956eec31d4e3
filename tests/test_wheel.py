"""What `pip install .` gives: the wheel holds its configurations and works from any folder."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from citygrain.support.config import find_config_dir

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow


def run(*command, cwd, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [str(c) for c in command],
        check=False,
        cwd=cwd,
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (path,) = folder.glob("citygrain-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Install the wheel into another environment, which sees the packages of this one but not its citygrain."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    (site / "zz_packages_of_the_tests.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"


def test_every_configuration_is_in_the_wheel(wheel):
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("citygrain/conf/")}
    assert inside == {
        f"citygrain/conf/{f.relative_to(find_config_dir()).as_posix()}" for f in find_config_dir().rglob("*.yaml")
    }


def test_nothing_but_the_package_is_in_the_wheel(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"citygrain"}
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pbf", ".tif", ".ipynb"))]
    assert "citygrain/py.typed" in names


def test_the_installed_command_works_from_an_empty_folder(installed, tmp_path):
    where = run(installed / "python", "-c", "import citygrain; print(citygrain.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(installed.parent)
    assert "citygrain train experiment=demo" in run(installed / "citygrain", cwd=tmp_path)
    assert "model.network.width" in run(installed / "citygrain", "train", "--help", cwd=tmp_path)
    assert "citygrain.models.diffusion.Diffusion" in run(installed / "citygrain", "train", "--cfg", "job", cwd=tmp_path)
    assert not list(tmp_path.iterdir())
