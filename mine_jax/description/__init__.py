"""Stage 5: critical tokens to words, and a sentence for every (voxel, image)."""

from mine_jax import _public
from mine_jax.description.corpus import CorpusShares as CorpusShares
from mine_jax.description.corpus import corpus_shares as corpus_shares
from mine_jax.description.describe import describe as describe
from mine_jax.description.describe import salience as salience
from mine_jax.description.describe import saliences as saliences
from mine_jax.description.describe import sentences as sentences
from mine_jax.description.lens import TokenWords as TokenWords
from mine_jax.description.lens import top_words as top_words
from mine_jax.description.presence import Presence as Presence
from mine_jax.description.words import clean_vocabulary as clean_vocabulary

__all__ = _public(globals())
