"""What every test may ask for: the sample extract that ships, and the real extracts where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def sample_pbf() -> Path:
    """Helsinki's centre, the extract that ships with the project."""
    return ROOT / "data" / "sample" / "helsinki.osm.pbf"


@pytest.fixture(scope="session")
def shared_osm() -> Path:
    """Folder of real extracts beside the checkout; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("CITYGRAIN_SHARED", ROOT.parent / "shared")) / "osm"
    if not (folder / "MANIFEST.md").is_file():
        pytest.skip(f"the real extracts are not at hand ({folder.name}/ beside the checkout, or CITYGRAIN_SHARED)")
    return folder


@pytest.fixture(scope="session")
def cities(sample_pbf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of prepared places that holds one, `helsinki`, prepared once a test process from the sample extract."""
    from citygrain.geo.place import Place
    from citygrain.geo.sources.osmfile import OsmFile
    from citygrain.prepare import prepare

    folder = tmp_path_factory.mktemp("cities")
    source = OsmFile(str(sample_pbf))
    prepare(Place.from_bbox("helsinki", source.extent()), source, folder, workers=1)
    return folder
