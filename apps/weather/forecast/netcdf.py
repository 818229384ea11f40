"""Model states as CF-1.11 datasets, and back."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from apps.lab.files import atomic_path
from apps.weather.atmosphere.constants import DAY_S
from apps.weather.atmosphere.state import GridState
from apps.weather.model import Model, ModelState
from core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from xarray import Dataset

TIME_UNITS = "days since 2001-03-20 00:00:00"
# name: (standard name, unit, axes, what the values are)
VARIABLES = {
    "temperature": ("air_temperature", "K", "level"),
    "specific_humidity": ("specific_humidity", "1", "level"),
    "eastward_wind": ("eastward_wind", "m s-1", "level"),
    "northward_wind": ("northward_wind", "m s-1", "level"),
    "surface_pressure": ("surface_air_pressure", "Pa", ""),
    "precipitation": ("precipitation_flux", "kg m-2 s-1", ""),
    "outgoing_longwave": ("toa_outgoing_longwave_flux", "W m-2", ""),
    "absorbed_shortwave": ("toa_net_downward_shortwave_flux", "W m-2", ""),
}
_REQUIRED = tuple(VARIABLES)[:5]
# Beyond these a value is in another unit, whatever its attribute says; dips of humidity below
# nought come from spectral models.
PLAUSIBLE = {
    "temperature": (100.0, 400.0),
    "specific_humidity": (-0.01, 0.1),
    "eastward_wind": (-400.0, 400.0),
    "northward_wind": (-400.0, 400.0),
    "surface_pressure": (3.0e4, 1.2e5),
}
# Grids agree when their coordinates do to the rounding of a float32 file.
_SAME = 1e-4


class Snapshot(NamedTuple):
    """Fields of one time, [lat, lon] or [level, lat, lon], by the names of `VARIABLES`."""

    time_s: float
    fields: dict[str, np.ndarray]


def snapshot(model: Model, state: ModelState) -> Snapshot:
    """Take the fields of a state that a file holds; fluxes are those of the last call.

    Humidity is that which the physics sees, nowhere negative (`Model.filled`).
    """
    grid = model.equations.to_grid(state.levels.current)
    humidity = model.filled(grid.humidity.flatten(0, 1), grid.surface_pressure.flatten()).view_as(
        grid.humidity
    )
    fields: dict[str, Tensor] = dict(
        zip(_REQUIRED, (grid.temperature, humidity, grid.u, grid.v), strict=False)
    )
    fields["surface_pressure"] = grid.surface_pressure
    shape = (model.grid.n_lon, model.grid.n_lat)
    if state.precipitation is not None:
        fields["precipitation"] = state.precipitation
    if state.radiation is not None:
        fields["outgoing_longwave"] = state.radiation.toa_lw.view(shape)
        fields["absorbed_shortwave"] = state.radiation.toa_sw.view(shape)
    return Snapshot(
        state.time_s,
        {name: x.permute(*reversed(range(x.dim()))).cpu().numpy() for name, x in fields.items()},
    )


def dataset(model: Model, snapshots: Sequence[Snapshot], *, title: str = "") -> Dataset:
    """Give a dataset with dimensions time, level, lat, lon, with units and standard names."""
    import xarray as xr

    levels = model.levels
    names = [name for name in VARIABLES if all(name in s.fields for s in snapshots)]
    variables = {}
    for name in names:
        standard_name, unit, level = VARIABLES[name]
        axes = ("time", "level", "lat", "lon") if level else ("time", "lat", "lon")
        stacked = np.stack([s.fields[name] for s in snapshots]).astype(np.float32)
        about = {"standard_name": standard_name, "units": unit, "cell_methods": "time: point"}
        variables[name] = (axes, stacked, about)
    bounds = np.stack([np.array(levels.half[:-1]), np.array(levels.half[1:])], axis=1)
    out = xr.Dataset(
        variables,
        coords={
            "time": (
                "time",
                np.array([s.time_s for s in snapshots]) / DAY_S,
                {"standard_name": "time", "units": TIME_UNITS, "calendar": "standard", "axis": "T"},
            ),
            "level": (
                "level",
                levels.full,
                {
                    "standard_name": "atmosphere_sigma_coordinate",
                    "long_name": "sigma at layer midpoints",
                    "units": "1",
                    "positive": "down",
                    "axis": "Z",
                    "formula_terms": "sigma: level ps: surface_pressure ptop: top_pressure",
                    "bounds": "level_bounds",
                },
            ),
            "lat": (
                "lat",
                np.degrees(model.grid.latitude.numpy()),
                {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
            ),
            "lon": (
                "lon",
                np.degrees(model.grid.longitude.numpy()),
                {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
            ),
        },
        attrs={
            "Conventions": "CF-1.11",
            "title": title or f"Aquaplanet on {model.grid}",
            "source": f"Tessera spectral primitive equations, {model.resolution}",
            "vertical_scheme": levels.scheme,
        },
    )
    terms = out["level"].attrs["formula_terms"].replace("level", "level_bounds")
    out["level_bounds"] = (("level", "bound"), bounds, {"formula_terms": terms})
    out["top_pressure"] = ((), 0.0, {"units": "Pa", "long_name": "pressure at the model top"})
    return out


def write_dataset(path: str | Path, data: Dataset) -> Path:
    """Write netCDF-4, or Zarr for a name that ends in ``.zarr``, whole or not at all.

    No fill values where there are none. Each netCDF variable carries checksums (Fletcher 32), so
    that a reader of any kind refuses a changed value.

    Raises
    ------
    ConfigError
        If Zarr is asked for and not installed.
    DataError
        If the file cannot be written, most often because the disk is full; what stood there stays.
    """
    path = Path(path)
    encoding: dict[str, dict[str, Any]] = {
        str(name): {"_FillValue": np.nan if bool(variable.isnull().any()) else None}
        for name, variable in data.variables.items()
    }
    if path.suffix == ".zarr":
        return _write_zarr(path, data, encoding)
    for name, variable in data.variables.items():
        if variable.ndim:  # HDF5 checks chunks, and a single value has none
            encoding[str(name)]["fletcher32"] = True
    try:
        with atomic_path(path) as part:
            data.to_netcdf(part, engine="netcdf4", encoding=encoding)
    except RuntimeError as error:  # what the library gives for any failure of the disk
        hint = "free some space or choose another --out; what stood there before still does"
        raise DataError(f"cannot write {path} ({error}); {hint}") from error
    return path


def _write_zarr(path: Path, data: Dataset, encoding: dict[str, dict[str, Any]]) -> Path:
    if importlib.util.find_spec("zarr") is None:
        raise ConfigError(
            f"cannot write {path.name}: the package zarr is not installed; "
            "install it (pip install zarr) or write netCDF (file_format=netcdf)"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    # A store is a folder, and no folder takes the place of another in one step: the old one is
    # set aside first, and goes once the new one, complete and on the disk, has its name.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        part, old = Path(folder) / path.name, Path(folder) / "old"
        data.to_zarr(part, mode="w", encoding=encoding, consolidated=False)
        if hasattr(os, "sync"):
            os.sync()
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(part, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
    return path


def open_dataset(path: str | Path) -> Dataset:
    """Read a netCDF file or a Zarr store into memory, its time left as numbers with their unit."""
    import xarray as xr

    try:
        is_zarr = Path(path).suffix == ".zarr"
        how = {"engine": "zarr", "consolidated": False} if is_zarr else {"engine": "netcdf4"}
        with xr.open_dataset(path, decode_times=False, **how) as data:
            return data.load()
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"cannot read {path} as netCDF ({error}); is it cut short, or of another format?"
        ) from error


def model_state(model: Model, data: Dataset, *, index: int = -1, who: str = "") -> ModelState:
    """Begin from one time of a dataset on the model's own grid.

    The winds and temperatures are projected on the model's harmonics and stepping starts with a
    forward step: for a continuation bit for bit use a restart file. Latitudes may run either way,
    longitudes from 0 or from -180 degrees.

    Raises
    ------
    DataError
        If a variable or its unit is missing, the unit is another, values are not finite or beyond
        `PLAUSIBLE`, the vertical coordinate is not sigma, grid or levels differ (both are named),
        axes are others, or the time cannot be told.
    """
    who = who or "dataset"
    for name in _REQUIRED:
        _, unit, _ = VARIABLES[name]
        if name not in data:
            raise DataError(f"{who}: variable {name!r} is missing; it has {_names(data.data_vars)}")
        came = data[name].attrs.get("units")
        if came is None:
            raise DataError(
                f"{who}: variable {name!r} has no units attribute; "
                f"this model reads {unit!r}: write it into the file"
            )
        if came != unit:
            raise DataError(f"{who}: {name!r} is in {came!r}, expected {unit!r}; convert it")
    _check_axes(data, who)
    data = _placed(model, data, who)
    n_time = data.sizes["time"]
    if not -n_time <= index < n_time:
        raise DataError(f"{who}: index {index} asks for more than the {n_time} times that it has")
    fields = {
        name: torch.as_tensor(data[name].isel(time=index).transpose(..., "lat", "lon").values)
        for name in _REQUIRED
    }
    for name, field in fields.items():
        if not bool(torch.isfinite(field).all()):
            at = torch.nonzero(~torch.isfinite(field))[0].tolist()
            axes = ("level", "lat", "lon")[-len(at) :]
            where = ", ".join(f"{a} {float(data[a][i]):g}" for a, i in zip(axes, at, strict=True))
            raise DataError(f"{who}: {name!r} holds values that are not finite, first at {where}")
        low, high = PLAUSIBLE[name]
        if float(field.min()) < low or float(field.max()) > high:
            raise DataError(
                f"{who}: {name!r} runs from {float(field.min()):g} to {float(field.max()):g} "
                f"{VARIABLES[name][1]}, expected {low:g} to {high:g}; is it in another unit?"
            )
    dtype, device = model.transform.dtype, model.transform.device
    t, q, u, v, p = (
        x.permute(*reversed(range(x.dim()))).to(device, dtype).contiguous() for x in fields.values()
    )
    time_s = _time_s(data, index, who)
    return model.begin(model.equations.from_grid(GridState(u, v, t, q, p)), time_s)


def _names(mapping: Iterable[Hashable]) -> str:
    return ", ".join(sorted(map(str, mapping)))


def _check_axes(data: Dataset, who: str) -> None:
    """Raise DataError unless coordinates run along their own axes and variables over these."""
    for name in ("time", "level", "lat", "lon"):
        if name not in data.coords:
            raise DataError(f"{who}: coordinate {name!r} is missing; it has {_names(data.coords)}")
        along = data[name]
        if along.dims != (name,):
            raise DataError(
                f"{who}: coordinate {name!r} lies over ({', '.join(map(str, along.dims))}), "
                f"expected ({name}) alone; this model reads full rectangular grids"
            )
        if name != "time" and along.dtype.kind not in "iuf":
            raise DataError(f"{who}: coordinate {name!r} holds {along.dtype}, expected numbers")
        if not along.size or bool(along.isnull().any()):
            raise DataError(f"{who}: coordinate {name!r} is empty or lacks values; fill it in")
    for name in _REQUIRED:
        axes = ("time", "level", "lat", "lon") if VARIABLES[name][2] else ("time", "lat", "lon")
        if set(data[name].dims) != set(axes):
            raise DataError(
                f"{who}: {name!r} lies over ({', '.join(map(str, data[name].dims))}), expected "
                f"({', '.join(axes)}); select or add what differs (isel, expand_dims)"
            )


def _time_s(data: Dataset, index: int, who: str) -> float:
    """Give the model's clock at one time of a dataset, whatever its unit and epoch."""
    import xarray as xr

    at = data["time"][index]
    if at.attrs.get("units") == TIME_UNITS:  # as this model writes it: to the bit
        return float(at) * DAY_S
    problem: Exception | None = None
    try:
        when = xr.decode_cf(at.to_dataset(name="at"))["time"].values
        if when.dtype.kind == "M":
            epoch = np.datetime64(TIME_UNITS.removeprefix("days since ").replace(" ", "T"))
            return float((when - epoch) / np.timedelta64(1, "s"))
    except (ValueError, OverflowError) as error:
        problem = error
    raise DataError(
        f"{who}: time is in {at.attrs.get('units')!r}, calendar "
        f"{at.attrs.get('calendar', 'standard')!r}; expected {TIME_UNITS!r}, or a unit since "
        "another date of the standard calendar"
    ) from problem


def _placed(model: Model, data: Dataset, who: str) -> Dataset:
    """Order rows from the south and columns from Greenwich; DataError unless on model's places."""
    ours = {
        "lat": np.degrees(model.grid.latitude.numpy()),
        "lon": np.degrees(model.grid.longitude.numpy()),
    }
    east = (data["lon"] + _SAME) % 360.0 - _SAME
    data = data.assign_coords(lon=east).sortby(["lat", "lon"])
    came = f"{data.sizes['lon']} x {data.sizes['lat']}"
    for name, expected in ours.items():
        values = np.asarray(data[name].values, dtype=np.float64)
        if values.shape != expected.shape or np.abs(values - expected).max() > _SAME:
            raise DataError(
                f"{who}: its grid is {came} (lon x lat, {name} from {values[0]:.3f} to "
                f"{values[-1]:.3f}), the model's is {model.grid}, {name} from "
                f"{expected[0]:.3f} to {expected[-1]:.3f}; choose the model's resolution to match"
            )
    vertical = data["level"].attrs.get("standard_name")
    if vertical != "atmosphere_sigma_coordinate":
        raise DataError(
            f"{who}: level is {vertical!r}, expected 'atmosphere_sigma_coordinate'; "
            "interpolate the file to sigma levels"
        )
    sigma = np.asarray(data["level"].values, dtype=np.float64)
    if sigma.shape != model.levels.full.shape or np.abs(sigma - model.levels.full).max() > _SAME:
        raise DataError(
            f"{who}: its sigma levels are {np.round(sigma, 4).tolist()}, the model's are "
            f"{np.round(model.levels.full, 4).tolist()}; choose the model's levels to match"
        )
    return data
