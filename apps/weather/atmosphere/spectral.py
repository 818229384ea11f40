"""Spherical harmonics by hand: tables in float64, two dense products per transform.

A field is f(lon, mu) = sum over |m| <= T, |m| <= n <= T of `c[m, n] P[m, n](mu) exp(i m lon)`, with
half the integral of P^2 over mu equal to one, so that c[0, 0] is the area mean. Coefficients are
real tensors [2, m, n, K]: real and imaginary part, m = 0..T, n = 0..T+1, and K fields or levels
side by side. The column n = T + 1 is zero in every scalar; winds and fluxes use it, which makes
the vector identities exact. Both the Fourier and the Legendre sum are matrix products with K
innermost: at these sizes that is as fast as an FFT with its two transpositions.

Source: Bourke 1972 (Mon. Wea. Rev. 100, 683), section 2; recurrences as in Holmes and
Featherstone 2002 (J. Geodesy 76, 279), equations 11 and 12, rescaled.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from apps.weather.atmosphere.constants import RADIUS
from apps.weather.atmosphere.grid import GaussianGrid
from core.errors import ShapeError


def epsilon(n_m: int, n_n: int) -> np.ndarray:
    """Recurrence factor sqrt((n^2 - m^2) / (4 n^2 - 1)), float64 [m, n], zero where n <= m."""
    m = np.arange(n_m, dtype=np.float64)[:, None]
    n = np.arange(n_n, dtype=np.float64)[None, :]
    return np.sqrt(np.maximum(n**2 - m**2, 0.0) / (4.0 * n**2 - 1.0 + (n == 0) * 2.0))


def legendre(n_m: int, n_n: int, sin_latitude: np.ndarray) -> np.ndarray:
    """Normalised associated Legendre functions P[m, n] at mu, float64 [m, n, lat]."""
    cos_latitude = np.sqrt(1.0 - sin_latitude**2)
    eps = epsilon(n_m, n_n + 1)
    table = np.zeros((n_m, n_n, len(sin_latitude)))
    sectoral = np.ones_like(sin_latitude)
    for m in range(n_m):
        if m > 0:
            sectoral = sectoral * cos_latitude * np.sqrt((2.0 * m + 1.0) / (2.0 * m))
        if m < n_n:
            table[m, m] = sectoral
        for n in range(m + 1, n_n):
            before = table[m, n - 2] if n - 2 >= m else 0.0
            table[m, n] = (sin_latitude * table[m, n - 1] - eps[m, n - 1] * before) / eps[m, n]
    return table


class HarmonicTransform:
    """Transforms and differential operators on one grid in one dtype.

    Parameters
    ----------
    grid : GaussianGrid
    dtype : torch.dtype
        float32 or float64, of tables and fields. Tables are built in float64 and rounded once.
    device : torch.device or str
    """

    def __init__(
        self,
        grid: GaussianGrid,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        self.grid, self.dtype, self.device = grid, dtype, torch.device(device)
        self.n_m, self.n_n = grid.truncation + 1, grid.truncation + 2
        mu = grid.sin_latitude.numpy()
        weight = grid.area_weight.numpy()[0] * grid.n_lon
        table = legendre(self.n_m, self.n_n, mu)
        angle = np.outer(np.arange(self.n_m), grid.longitude.numpy())
        count = np.where(np.arange(self.n_m) == 0, 1.0, 2.0)[:, None]
        # Half a circle on, even waves are the same and odd ones change their sign: half the
        # products with half the longitudes. Rows and columns are (real or imaginary, m).
        half = angle[:, : grid.n_lon // 2]
        wave = np.stack([np.cos(half), -np.sin(half)])
        self._to_even, self._to_odd = (
            self.tensor(wave[:, i::2].reshape(-1, half.shape[1]) / grid.n_lon) for i in (0, 1)
        )
        self._from_even, self._from_odd = (
            self.tensor((count * wave)[:, i::2].reshape(-1, half.shape[1]).T) for i in (0, 1)
        )
        # twice, for real and imaginary parts: a table spread at each product would be copied
        self._project = self.tensor(np.stack([table * weight] * 2))
        self._evaluate = self.tensor(np.stack([table.transpose(0, 2, 1)] * 2))

        m = np.arange(self.n_m, dtype=np.float64)[:, None]
        n = np.arange(self.n_n, dtype=np.float64)[None, :]
        eps = epsilon(self.n_m, self.n_n + 1)
        kept = (n >= m) & (n <= grid.truncation)
        laplacian = np.broadcast_to(-n * (n + 1.0) / RADIUS**2, kept.shape) * kept
        inverse = np.divide(1.0, laplacian, out=np.zeros_like(laplacian), where=laplacian != 0.0)
        self.mask = self._table(kept)
        self.laplacian_factor = self._table(laplacian)
        self.inverse_laplacian_factor = self._table(inverse)
        self.total_wavenumber = torch.from_numpy(n[0])
        # (1 - mu^2) d/dmu on coefficients: from n - 1 and from n + 1
        self._from_below = self._table(-(n - 1.0) * eps[:, :-1] / RADIUS)
        self._from_above = self._table((n + 2.0) * eps[:, 1:] / RADIUS)
        # its adjoint, for the divergence of a flux
        self._flux_below = self._table((n + 1.0) * eps[:, :-1] / RADIUS)
        self._flux_above = self._table(-n * eps[:, 1:] / RADIUS)
        self._im = self.tensor(np.stack([-m, m]) / RADIUS).reshape(2, self.n_m, 1, 1)
        self.cos_latitude = self.tensor(np.sqrt(1.0 - mu**2)).reshape(1, -1, 1)
        self.inverse_cos_latitude = 1.0 / self.cos_latitude

    def tensor(self, values: np.ndarray | Tensor) -> Tensor:
        """Round float64 values once to this transform's dtype and device."""
        return torch.as_tensor(values, dtype=torch.float64).to(self.device, self.dtype).contiguous()

    def _table(self, values: np.ndarray) -> Tensor:
        return self.tensor(values.astype(np.float64)).unsqueeze(-1)

    def zeros(self, n_field: int) -> Tensor:
        """Coefficients of `n_field` zero fields, [2, m, n, n_field]."""
        return torch.zeros(2, self.n_m, self.n_n, n_field, dtype=self.dtype, device=self.device)

    # ---------------------------------------------------------------- scalar transforms

    def analyse_full(self, field: Tensor) -> Tensor:
        """Coefficients up to n = T + 1 of grid fields [lon, lat, K]."""
        if field.shape[:2] != (self.grid.n_lon, self.grid.n_lat):
            raise ShapeError(
                f"HarmonicTransform.analyse: field must be [lon, lat, K] = "
                f"[{self.grid.n_lon}, {self.grid.n_lat}, K] on the {self.grid} grid, "
                f"got {tuple(field.shape)}; was it written on another grid?"
            )
        n_lat, n_field, half = self.grid.n_lat, field.shape[2], self.grid.n_lon // 2
        near, far = field[:half].reshape(half, -1), field[half:].reshape(half, -1)
        shape = (2, -1, n_lat, n_field)
        even = (self._to_even @ (near + far)).view(shape)
        odd = (self._to_odd @ (near - far)).view(shape)
        out = [
            torch.matmul(self._project[:, i::2], wave).unsqueeze(2)
            for i, wave in enumerate((even, odd))
        ]
        if self.n_m % 2:
            out[1] = torch.nn.functional.pad(out[1], (0, 0, 0, 0, 0, 0, 0, 1))
        return torch.cat(out, 2).flatten(1, 2)[:, : self.n_m]

    def analyse(self, field: Tensor) -> Tensor:
        """Coefficients [2, m, n, K] of grid fields [lon, lat, K], truncated at n = T."""
        return self.analyse_full(field) * self.mask

    def synthesise(self, coefficient: Tensor) -> Tensor:
        """Grid fields [lon, lat, K] of coefficients [2, m, n, K]."""
        wave = torch.matmul(self._evaluate, coefficient).flatten(2)
        even = self._from_even @ wave[:, ::2].reshape(-1, wave.shape[2])
        odd = self._from_odd @ wave[:, 1::2].reshape(-1, wave.shape[2])
        field = torch.cat([even + odd, even - odd])
        return field.view(self.grid.n_lon, self.grid.n_lat, -1)

    # ---------------------------------------------------------------- derivatives

    def laplacian(self, coefficient: Tensor) -> Tensor:
        """Second derivative on the sphere, m-2 times the unit of the field."""
        return coefficient * self.laplacian_factor

    def inverse_laplacian(self, coefficient: Tensor) -> Tensor:
        """Give the field of zero mean whose Laplacian is given."""
        return coefficient * self.inverse_laplacian_factor

    def zonal_derivative(self, coefficient: Tensor) -> Tensor:
        """1/a df/dlon."""
        return coefficient.flip(0) * self._im

    def _shift(self, coefficient: Tensor, below: Tensor, above: Tensor) -> Tensor:
        out = torch.zeros_like(coefficient)
        out[:, :, 1:] = coefficient[:, :, :-1] * below[:, 1:]
        out[:, :, :-1] += coefficient[:, :, 1:] * above[:, :-1]
        return out

    def meridional_derivative(self, coefficient: Tensor) -> Tensor:
        """cos(latitude)/a df/dlatitude, exact up to n = T + 1."""
        return self._shift(coefficient, self._from_below, self._from_above)

    def scaled_gradient(self, coefficient: Tensor) -> tuple[Tensor, Tensor]:
        """Eastward and northward gradient, each times cos(latitude)."""
        return self.zonal_derivative(coefficient), self.meridional_derivative(coefficient)

    def scaled_wind(self, vorticity: Tensor, divergence: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients of u cos(latitude) and v cos(latitude), m/s, from s-1."""
        stream = self.inverse_laplacian(vorticity)
        potential = self.inverse_laplacian(divergence)
        east = self.zonal_derivative(potential) - self.meridional_derivative(stream)
        north = self.zonal_derivative(stream) + self.meridional_derivative(potential)
        return east, north

    def wind(self, vorticity: Tensor, divergence: Tensor) -> tuple[Tensor, Tensor]:
        """Grid u and v [lon, lat, K] in m/s from coefficients in s-1."""
        scaled = self.synthesise(torch.cat(self.scaled_wind(vorticity, divergence), dim=-1))
        east, north = (scaled * self.inverse_cos_latitude).chunk(2, dim=-1)
        return east, north

    def divergence_of(self, east: Tensor, north: Tensor) -> Tensor:
        """Divergence from the full coefficients of a flux divided by cos(latitude)."""
        meridional = self._shift(north, self._flux_below, self._flux_above)
        return (self.zonal_derivative(east) - meridional) * self.mask

    def curl_of(self, east: Tensor, north: Tensor) -> Tensor:
        """Vertical curl from the full coefficients of a flux divided by cos(latitude)."""
        return self.divergence_of(north, -east)

    def vorticity_divergence(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients in s-1 from grid winds [lon, lat, K] in m/s."""
        flux = self.analyse_full(torch.cat([u, v], dim=-1) * self.inverse_cos_latitude)
        east, north = flux.chunk(2, dim=-1)
        return self.curl_of(east, north), self.divergence_of(east, north)
