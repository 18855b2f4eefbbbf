"""Stage 9: tables and figures of a run to one HTML file, and figures for papers."""

from mine_jax import _public
from mine_jax.report.demo import write_demo_report as write_demo_report
from mine_jax.report.plates import write_figures as write_figures
from mine_jax.report.report import write_report as write_report

__all__ = _public(globals())
