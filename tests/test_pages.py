"""The Python that README and the documentation show runs as it stands, where the sample extract is enough for it."""

import re
from pathlib import Path

import matplotlib as mpl
import pytest

from citygrain.__main__ import main
from citygrain.data.prepare import prepare
from citygrain.geo.place import Place
from citygrain.geo.sources.osmfile import OsmFile

ROOT = Path(__file__).resolve().parents[1]

PAGES = ["README.md", "docs/index.md", "docs/start.md", "docs/sampling.md", "docs/vectors.md"]
ELSEWHERE = ("cityseer",)
"""Packages that pages show and tests do not have."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::citygrain.spec.OutOfRangeWarning"),
]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with what the commands of the pages write: Helsinki prepared, a layout and its vectors."""
    folder = tmp_path_factory.mktemp("workplace")
    source = OsmFile(ROOT / "data" / "sample" / "helsinki.osm.pbf")
    prepare(Place.from_bbox("helsinki", source.extent()), source, folder / "data" / "cities")
    mine, vectors = folder / "out" / "mine", folder / "out" / "vectors"
    main(["sample", "checkpoint=reference/cities_64", "n=1", "conditions.coverage=0.3", f"out={mine}"])
    main(["vectorize", f"layouts={mine}", f"out={vectors}", "formats=[gpkg,graphml]", "workers=1"])
    return folder


def python(page):
    """Return the blocks of Python of a page in order, without those that need other packages."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [code for code in found if not any(f"from {name}" in code for name in ELSEWHERE)]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_does_what_it_shows(page, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    mpl.use("Agg")
    written = {}
    for code in python(page):
        exec(compile(code, page, "exec"), written)
    assert written["layouts"]
