"""Free runs, states in files, and forecasts scored against the exact scheme."""

from apps.weather.forecast.budget import EnergyBudget, energy
from apps.weather.forecast.ensemble import forecast_dataset
from apps.weather.forecast.forecast import ForecastConfig, verify_radiation
from apps.weather.forecast.netcdf import dataset, model_state, open_dataset, snapshot, write_dataset
from apps.weather.forecast.regrid import regrid
from apps.weather.forecast.restart import begin_finer, load_state, save_state
from apps.weather.forecast.sample import load_sample
from apps.weather.forecast.sea import sea_surface
from apps.weather.forecast.simulate import ModelConfig, SimulateConfig, first_state
from apps.weather.forecast.verify import Verification, make_truth, score_forecasts

__all__ = [
    "EnergyBudget",
    "ForecastConfig",
    "ModelConfig",
    "SimulateConfig",
    "Verification",
    "begin_finer",
    "dataset",
    "energy",
    "first_state",
    "forecast_dataset",
    "load_sample",
    "load_state",
    "make_truth",
    "model_state",
    "open_dataset",
    "regrid",
    "save_state",
    "score_forecasts",
    "sea_surface",
    "snapshot",
    "verify_radiation",
    "write_dataset",
]
