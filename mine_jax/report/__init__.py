"""Stage 9: tables and figures of a run to one HTML file."""

from mine_jax.report.demo import write_demo_report as write_demo_report
from mine_jax.report.report import write_report as write_report
from mine_jax.report.study import write_study_figure as write_study_figure
