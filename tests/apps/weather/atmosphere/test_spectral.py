import numpy as np
import pytest
import torch

from apps.weather.atmosphere.constants import RADIUS
from apps.weather.atmosphere.grid import GaussianGrid
from apps.weather.atmosphere.spectral import HarmonicTransform, legendre
from core.errors import ShapeError

ROUND_TRIP = 1e-12  # the goal of the transform in float64, coefficients of order one
# derivatives up to second order amplify the rounding of order-30 fields by 21 * 22
DERIVED = 1e-11
# float32: about sqrt(64) roundings of 6e-8 on sums of some hundred terms of order one to ten
ROUND_TRIP_FP32 = 2e-5


@pytest.fixture(scope="module")
def transform():
    return HarmonicTransform(GaussianGrid(21), dtype=torch.float64)


def random_coefficients(transform, n_field, seed=0):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(
        2, transform.n_m, transform.n_n, n_field, generator=generator, dtype=torch.float64
    )
    drawn[1, 0] = 0.0
    return (drawn * transform.mask.double()).to(transform.dtype)


def grids(transform):
    grid = transform.grid
    longitude = grid.longitude.reshape(-1, 1, 1).expand(grid.n_lon, grid.n_lat, 1)
    return longitude, grid.latitude.reshape(1, -1, 1).expand(grid.n_lon, grid.n_lat, 1)


def test_legendre_functions_match_closed_forms():
    mu = np.linspace(-0.99, 0.99, 7)
    cos = np.sqrt(1 - mu**2)
    table = legendre(4, 4, mu)
    closed = {
        (0, 0): np.ones_like(mu),
        (0, 1): np.sqrt(3.0) * mu,
        (1, 1): np.sqrt(1.5) * cos,
        (0, 2): np.sqrt(5.0) * 0.5 * (3 * mu**2 - 1),
        (1, 2): np.sqrt(7.5) * mu * cos,
        (2, 2): np.sqrt(15.0 / 8.0) * cos**2,
        (3, 3): np.sqrt(35.0 / 16.0) * cos**3,
    }
    for (m, n), value in closed.items():
        np.testing.assert_allclose(table[m, n], value, atol=1e-14)


def test_legendre_functions_are_orthonormal():
    nodes, weights = np.polynomial.legendre.leggauss(64)
    table = legendre(43, 44, nodes)
    for m in (0, 1, 20, 42):
        gram = 0.5 * (table[m, m:] * weights) @ table[m, m:].T
        np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-13)


@pytest.mark.parametrize("truncation", [21, 31, 42])
def test_round_trip(truncation):
    transform = HarmonicTransform(GaussianGrid(truncation), dtype=torch.float64)
    coefficient = random_coefficients(transform, 9)
    back = transform.analyse(transform.synthesise(coefficient))
    assert (back - coefficient).abs().max() < ROUND_TRIP


def test_round_trip_in_float32():
    transform = HarmonicTransform(GaussianGrid(31))
    coefficient = random_coefficients(transform, 9)
    back = transform.analyse(transform.synthesise(coefficient))
    assert (back - coefficient).abs().max() < ROUND_TRIP_FP32


def test_synthesis_is_the_sum_of_its_definition(transform):
    coefficient = random_coefficients(transform, 1)
    table = legendre(transform.n_m, transform.n_n, transform.grid.sin_latitude.numpy())
    number = (coefficient[0, ..., 0] + 1j * coefficient[1, ..., 0]).numpy()
    for i, j in ((0, 0), (13, 7), (63, 31)):
        total = 0.0
        for m in range(transform.n_m):
            wave = np.exp(1j * m * float(transform.grid.longitude[i]))
            value = (number[m] * table[m, :, j]).sum() * wave
            total += value.real * (1 if m == 0 else 2)
        assert float(transform.synthesise(coefficient)[i, j, 0]) == pytest.approx(total, abs=1e-11)


def test_parseval(transform):
    coefficient = random_coefficients(transform, 1)
    field = transform.synthesise(coefficient)
    count = torch.full((transform.n_m, 1, 1), 2.0, dtype=torch.float64)
    count[0] = 1.0
    energy = (coefficient.square().sum(0) * count).sum()
    assert float(transform.grid.mean(field.square())) == pytest.approx(float(energy), rel=1e-13)


def test_gradient_of_a_closed_form(transform):
    longitude, latitude = grids(transform)
    field = latitude.cos() * longitude.cos()
    east, north = transform.scaled_gradient(transform.analyse(field))
    slope = transform.synthesise(torch.cat([east, north], dim=-1)) * RADIUS
    assert (slope[..., :1] + latitude.cos() * longitude.sin()).abs().max() < 1e-13
    expected = -latitude.sin() * latitude.cos() * longitude.cos()
    assert (slope[..., 1:] - expected).abs().max() < 1e-13


def test_laplacian_of_a_harmonic_is_its_eigenvalue(transform):
    longitude, latitude = grids(transform)
    field = latitude.cos() ** 3 * (3 * longitude).sin()  # n = 3
    back = transform.synthesise(transform.laplacian(transform.analyse(field))) * RADIUS**2
    assert (back + 12.0 * field).abs().max() < DERIVED
    inverse = transform.inverse_laplacian(transform.laplacian(transform.analyse(field)))
    assert (transform.synthesise(inverse) - field).abs().max() < 1e-13


def test_vorticity_of_solid_body_rotation(transform):
    _, latitude = grids(transform)
    u = 30.0 * latitude.cos()
    vorticity, divergence = transform.vorticity_divergence(u, torch.zeros_like(u))
    field = transform.synthesise(torch.cat([vorticity, divergence], dim=-1)) * RADIUS
    assert (field[..., :1] - 60.0 * latitude.sin()).abs().max() < DERIVED
    assert field[..., 1:].abs().max() < DERIVED


def test_wind_round_trip(transform):
    vorticity = random_coefficients(transform, 4)
    divergence = random_coefficients(transform, 4, seed=1)
    vorticity[:, 0, 0] = divergence[:, 0, 0] = 0.0
    back = transform.vorticity_divergence(*transform.wind(vorticity, divergence))
    assert (back[0] - vorticity).abs().max() < ROUND_TRIP
    assert (back[1] - divergence).abs().max() < ROUND_TRIP


def test_vector_identities(transform):
    """A gradient has no curl and a rotated gradient no divergence."""
    potential = random_coefficients(transform, 1)
    gradient = torch.cat(transform.scaled_gradient(potential), dim=-1)
    east, north = (transform.synthesise(gradient) * transform.inverse_cos_latitude * RADIUS).chunk(
        2, dim=-1
    )
    curl, divergence = transform.vorticity_divergence(east, north)
    assert curl.abs().max() * RADIUS < 1e-10
    expected = transform.laplacian(potential) * RADIUS
    assert (divergence - expected).abs().max() * RADIUS < 1e-10
    curl, divergence = transform.vorticity_divergence(-north, east)
    assert divergence.abs().max() * RADIUS < 1e-10
    assert (curl - expected).abs().max() * RADIUS < 1e-10


def test_field_of_another_grid_is_refused(transform):
    with pytest.raises(ShapeError, match=r"\[64, 32, K\] on the T21 .* got \(96, 48, 1\)"):
        transform.analyse(torch.zeros(96, 48, 1, dtype=torch.float64))
