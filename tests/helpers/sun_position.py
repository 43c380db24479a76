"""Where the sun stands, by another method than the program's library: to judge sunrises and sunsets by.

Constants: U.S. Naval Observatory, "Computing Approximate Solar Coordinates" and "Computing Approximate Sidereal Time", as in
The Astronomical Almanac, page C5. Good to a sixtieth of a degree from 1800 to 2200.
"""

from math import asin, atan2, cos, degrees, radians, sin

_J2000 = 946_728_000.0  # unix seconds of 1 January 2000, 12:00 UTC: Julian day 2451545.0
LIMIT = -0.833  # degrees of the sun's middle at sunrise and sunset, as almanacs have it


def height(latitude: float, longitude: float, at: float) -> float:
    """Degrees of the sun's middle above the horizon at that moment (unix seconds), without refraction."""
    days = (at - _J2000) / 86400
    anomaly = radians(357.529 + 0.98560028 * days)
    mean = 280.459 + 0.98564736 * days
    ecliptic = radians(mean + 1.915 * sin(anomaly) + 0.020 * sin(2 * anomaly))
    obliquity = radians(23.439 - 0.00000036 * days)
    right_ascension = atan2(cos(obliquity) * sin(ecliptic), cos(ecliptic))
    declination = asin(sin(obliquity) * sin(ecliptic))
    sidereal = radians(15 * (18.697374558 + 24.06570982441908 * days) + longitude)
    north = radians(latitude)
    hour_angle = sidereal - right_ascension
    return degrees(asin(sin(north) * sin(declination) + cos(north) * cos(declination) * cos(hour_angle)))
