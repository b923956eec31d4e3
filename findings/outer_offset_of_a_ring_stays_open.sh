#!/usr/bin/env bash
# The outer offset of a closed line loses the corner where the line begins (GEOS, by shapely).
#
# Versions     shapely 2.2.0 with GEOS 3.14.1
# Expected     The offset curve of a closed line is closed on either side: the line has no ends, only a first vertex.
# Seen         Inwards it is closed. Outwards, with mitred joins, it is open: of the square of 10 m, offset by 2 m, two
#              sides of four come back (28 m of 56 m), and of a ring of 24 corners and 40 m radius, offset by 6 m,
#              264.5 m of 288.5 m. The corner at the first vertex is treated as two ends, so that the two pieces that
#              meet there go missing, the longer the fewer corners. A LinearRing gives the same as a LineString.
#              With round and bevelled joins the ring of 24 corners is closed; the square with round joins is not.
# Matters      Cycle lanes, sidewalks and kerbs of roundabouts are drawn as offsets of closed ways. A twelfth of a lane
#              of a roundabout, half of one around a square block, is missing without a word.
# Remedy       Where the line is a ring, take the outer ring of the polygon's buffer, with the same joins.
# Source       https://shapely.readthedocs.io/en/stable/reference/shapely.offset_curve.html says of ends nothing but
#              that the curve is "to the left" or "to the right".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "shapely==2.2.0"
"$folder/venv/bin/python" - <<'PYTHON'
import math

import shapely

assert shapely.geos_version[:2] == (3, 14), shapely.geos_version
square = shapely.LineString([(0, 0), (10, 0), (10, 10), (0, 10), (0, 0)])
corners = [(40 * math.cos(k * math.tau / 24), 40 * math.sin(k * math.tau / 24)) for k in range(24)]
ring = shapely.LineString([*corners, corners[0]])
mitred = {"join_style": "mitre"}

for name, line, metres, length, whole in (("square", square, 2, 28.0, 56.0), ("24 corners", ring, 6, 264.5, 288.5)):
    outwards = shapely.offset_curve(line, -metres, **mitred)  # the line runs anticlockwise: its right is outside
    inwards = shapely.offset_curve(line, metres, **mitred)
    buffered = shapely.Polygon(line).buffer(metres, **mitred).exterior
    print(f"{name}: outwards {outwards.length:.1f} m, closed {outwards.is_closed}; buffer {buffered.length:.1f} m")
    assert inwards.is_closed
    assert not outwards.is_closed, "closed now: the finding no longer holds"
    assert abs(outwards.length - length) < 0.1, outwards.length
    assert abs(buffered.length - whole) < 0.1, buffered.length
    assert shapely.offset_curve(shapely.LinearRing(line), -metres, **mitred).equals(outwards)
assert shapely.offset_curve(ring, -6, join_style="round").is_closed
assert not shapely.offset_curve(square, -2, join_style="round").is_closed
print("as described")
PYTHON
