import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mine_jax.phantom.training.diffusion import latent_reader  # noqa: E402


def planted(n, rng):
    """Latents [n, 4, 16, 16] with one of three patterns somewhere, and which one."""
    patterns = rng.standard_normal((3, 4, 4, 4)) * 2
    latents = 0.3 * rng.standard_normal((n, 4, 16, 16))
    concepts = rng.integers(0, 3, n)
    for latent, concept in zip(latents, concepts, strict=True):
        row, column = rng.integers(1, 11, 2)
        latent[:, row : row + 4, column : column + 4] = patterns[concept]
    return torch.from_numpy(latents).half(), np.eye(3, dtype=bool)[concepts]


@pytest.fixture(scope="module")
def trained():
    latents, shown = planted(256, np.random.default_rng(0))
    torch.manual_seed(0)
    return latent_reader.fit(latents, shown, n_readers=2, n_steps=60, seed=0), latents.float(), torch.from_numpy(shown)


def test_readers_ask_for_the_concept_that_is_missing(trained):
    readers, latents, shown = trained
    right = readers.loss(latents, latents, shown)
    wrong = readers.loss(latents, latents, shown.roll(1, dims=1))
    blurred = readers.loss(torch.nn.functional.avg_pool2d(latents, 5, 1, 2), latents, shown)
    assert right.mean() < 0.2
    assert (wrong > right).float().mean() > 0.95
    assert (blurred > right).all()


def test_gradients_reach_the_picture_and_not_the_readers(trained):
    readers, latents, shown = trained
    painted = torch.zeros_like(latents[:4]).requires_grad_()
    readers.loss(painted, latents[:4], shown[:4]).sum().backward()
    assert painted.grad.abs().amax((1, 2, 3)).min() > 0
    assert all(parameter.grad is None for member in readers.members for parameter in member.parameters())
