"""On which side of the road people drive, by where they are.

Cycle lanes of one-way streets lie on the side that traffic keeps to. Countries and territories are told by their time
zone, whose outlines come with the package tzfpy: to some hundred metres at a border, and without a network.

References
----------
https://wiki.openstreetmap.org/wiki/Key:driving_side
"""

from __future__ import annotations

from typing import Literal

import tzfpy

LEFT = frozenset(
    f"{region}/{city}"
    for region, cities in {
        "Africa": "Blantyre Dar_es_Salaam Gaborone Harare Johannesburg Kampala Lusaka Maputo Maseru Mbabane Nairobi "
        "Windhoek",
        "America": "Anguilla Antigua Barbados Cayman Dominica Grand_Turk Grenada Guyana Jamaica Montserrat Nassau "
        "Paramaribo Port_of_Spain St_Kitts St_Lucia St_Thomas St_Vincent Tortola",
        "Asia": "Bangkok Brunei Colombo Dhaka Dili Famagusta Hong_Kong Jakarta Jayapura Karachi Kathmandu Kolkata "
        "Kuala_Lumpur Kuching Macau Makassar Nicosia Pontianak Singapore Thimphu Tokyo",
        "Atlantic": "Bermuda South_Georgia St_Helena Stanley",
        "Australia": "Adelaide Brisbane Broken_Hill Darwin Eucla Hobart Lindeman Lord_Howe Melbourne Perth Sydney",
        "Antarctica": "Macquarie",
        "Europe": "Dublin Guernsey Isle_of_Man Jersey London Malta",
        "Indian": "Christmas Cocos Mahe Maldives Mauritius",
        "Pacific": "Apia Auckland Bougainville Chatham Fakaofo Fiji Funafuti Guadalcanal Kiritimati Nauru Niue Norfolk "
        "Pitcairn Port_Moresby Rarotonga Tarawa Kanton Tongatapu",
    }.items()
    for city in cities.split()
)
"""Time zones whose countries drive on the left."""


def find_driving_side(lon: float, lat: float) -> Literal["left", "right"]:
    """Return the side of the road that traffic keeps to at a point in degrees.

    >>> find_driving_side(-0.1, 51.5), find_driving_side(12.57, 55.68), find_driving_side(139.7, 35.7)
    ('left', 'right', 'left')
    """
    return "left" if tzfpy.get_tz(lon, lat) in LEFT else "right"
