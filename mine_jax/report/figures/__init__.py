"""Figures for papers: tables of a run enter, matplotlib figures leave, one or two columns of a journal wide."""

from mine_jax.report.figures.accuracy import accuracy_against_ceiling as accuracy_against_ceiling
from mine_jax.report.figures.accuracy import accuracy_by_area as accuracy_by_area
from mine_jax.report.figures.accuracy import accuracy_distribution as accuracy_distribution
from mine_jax.report.figures.areas import area_categories as area_categories
from mine_jax.report.figures.edits import EditPair as EditPair
from mine_jax.report.figures.edits import edit_pairs as edit_pairs
from mine_jax.report.figures.edits import edit_shifts as edit_shifts
from mine_jax.report.figures.edits import true_shifts as true_shifts
from mine_jax.report.figures.faithfulness import faithfulness_curves as faithfulness_curves
from mine_jax.report.figures.heat import HeatMap as HeatMap
from mine_jax.report.figures.heat import heat_map as heat_map
from mine_jax.report.figures.heat import heat_maps as heat_maps
from mine_jax.report.figures.heat import heat_scale as heat_scale
from mine_jax.report.figures.ladder import claims_by_area as claims_by_area
from mine_jax.report.figures.style import save as save
from mine_jax.report.figures.truth import false_discoveries as false_discoveries
from mine_jax.report.figures.truth import power_against_ceiling as power_against_ceiling
from mine_jax.report.figures.truth import worth_of_claims as worth_of_claims
from mine_jax.report.figures.words import area_words as area_words
from mine_jax.report.figures.words import profile_bars as profile_bars
