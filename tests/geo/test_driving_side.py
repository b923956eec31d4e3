"""Where people drive on the left: capitals, borders and islands."""

from __future__ import annotations

import pytest
import tzfpy

from citygrain.geo.driving_side import LEFT, find_driving_side
from citygrain.geo.place import Place


@pytest.mark.parametrize(
    ("where", "lon", "lat", "side"),
    [
        ("London", -0.12, 51.51, "left"),
        ("Dover", 1.31, 51.13, "left"),
        ("Calais", 1.86, 50.95, "right"),
        ("Dublin", -6.26, 53.35, "left"),
        ("Gibraltar", -5.35, 36.14, "right"),
        ("Valletta", 14.51, 35.90, "left"),
        ("Nicosia", 33.36, 35.17, "left"),
        ("Copenhagen", 12.57, 55.68, "right"),
        ("Houston", -95.37, 29.76, "right"),
        ("Tokyo", 139.69, 35.69, "left"),
        ("Hong Kong", 114.17, 22.32, "left"),
        ("Shenzhen", 114.06, 22.54, "right"),
        ("Macau", 113.55, 22.19, "left"),
        ("Bangkok", 100.50, 13.75, "left"),
        ("Vientiane", 102.60, 17.97, "right"),
        ("Yangon", 96.16, 16.80, "right"),
        ("Dili", 125.57, -8.56, "left"),
        ("Sydney", 151.21, -33.87, "left"),
        ("Auckland", 174.76, -36.85, "left"),
        ("Apia", -171.76, -13.83, "left"),
        ("Pago Pago", -170.70, -14.28, "right"),
        ("Nairobi", 36.82, -1.29, "left"),
        ("Kigali", 30.06, -1.95, "right"),
        ("Maputo", 32.57, -25.97, "left"),
        ("Luanda", 13.23, -8.84, "right"),
        ("Cape Town", 18.42, -33.92, "left"),
        ("Paramaribo", -55.17, 5.85, "left"),
        ("Cayenne", -52.33, 4.92, "right"),
        ("Charlotte Amalie", -64.93, 18.34, "left"),
        ("San Juan", -66.11, 18.47, "right"),
    ],
)
def test_the_side_of_the_road(where: str, lon: float, lat: float, side: str) -> None:
    assert find_driving_side(lon, lat) == side, where
    assert Place.from_bbox("town", (lon - 0.01, lat - 0.01, lon + 0.01, lat + 0.01)).driving_side == side


def test_every_time_zone_of_the_table_has_an_outline() -> None:
    assert set(tzfpy.timezonenames()) >= LEFT
