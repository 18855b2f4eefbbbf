"""What can be known of a section [data] from the files of a data set, by names and headers alone."""

from mine_jax.data.surveys.found import Found as Found
from mine_jax.data.surveys.own import lines_of as lines_of
from mine_jax.data.surveys.survey import SURVEYS as SURVEYS
from mine_jax.data.surveys.survey import survey as survey
