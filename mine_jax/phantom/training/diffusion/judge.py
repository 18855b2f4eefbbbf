"""The phantom's judge: images in, the concepts that they show out.

A small convolutional network of its own, trained on scenes of its own: it shares nothing with
the CLIP and the diffusion models, so it can say whether their images show what they should.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import safetensors.torch
import torch

from mine_jax.phantom import scenes

# A concept counts as present above this probability.
THRESHOLD: Final = 0.5
_WIDTHS: Final = (24, 48, 72, 96)
_WEIGHTS: Final = "model.safetensors"
_CONFIG: Final = "config.json"


class Network(torch.nn.Module):
    """Four strided stages, then the strongest evidence over all positions per concept."""

    def __init__(self, widths: tuple[int, ...], n_concepts: int) -> None:
        """Builds random weights."""
        super().__init__()
        layers: list[torch.nn.Module] = []
        for before, width in zip((3, *widths), widths, strict=False):
            for source, stride in ((before, 2), (width, 1)):
                layers += [
                    torch.nn.Conv2d(source, width, 3, stride, 1, bias=False),
                    torch.nn.BatchNorm2d(width),
                    torch.nn.ReLU(),
                ]
        self.body = torch.nn.Sequential(*layers)
        self.head = torch.nn.Linear(widths[-1], n_concepts)
        # Nearly every concept is absent from an image: start from that belief.
        torch.nn.init.constant_(self.head.bias, -6.0)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        """Signal float [N, 3, S, S] in -1..1 -> logits [N, n_concepts]."""
        hidden = self.body(signal).permute(0, 2, 3, 1).flatten(1, 2)
        return torch.logsumexp(self.head(hidden), dim=1)


@dataclass(frozen=True)
class Judge:
    """A trained judge.

    Attributes:
        network: its weights.
        concepts: the names it knows, in the order of its outputs.
    """

    network: Network
    concepts: tuple[str, ...]

    def probabilities(self, images: np.ndarray, *, batch_size: int = 256) -> np.ndarray:
        """Says how likely each concept is shown.

        Args:
            images: RGB, uint8 [N, S, S, 3].
            batch_size: images at once; never changes the result.

        Returns:
            np.ndarray: float32 [N, n_concepts], 0..1, in the order of `concepts`.
        """
        logits = []
        with torch.inference_mode():
            for start in range(0, len(images), batch_size):
                logits.append(self.network(to_signal(images[start : start + batch_size])))
        return torch.cat(logits).sigmoid().numpy() if logits else np.zeros((0, len(self.concepts)), np.float32)

    def present(self, images: np.ndarray) -> np.ndarray:
        """Says which concepts images show: uint8 [N, S, S, 3] -> bool [N, n_concepts]."""
        return self.probabilities(images) > THRESHOLD


def build() -> Judge:
    """Returns an untrained judge of all concepts."""
    return Judge(Network(_WIDTHS, len(scenes.CONCEPTS)), scenes.CONCEPTS)


def load(directory: Path) -> Judge:
    """Reads a judge that `save` wrote; computes in float32."""
    config = json.loads((directory / _CONFIG).read_text(encoding="utf-8"))
    network = Network(tuple(config["widths"]), len(config["concepts"]))
    network.load_state_dict(safetensors.torch.load_file(directory / _WEIGHTS))
    return Judge(network.float().eval(), tuple(config["concepts"]))


def save(directory: Path, judge: Judge) -> None:
    """Writes weights in float16 and the names of the concepts."""
    directory.mkdir(parents=True, exist_ok=True)
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in judge.network.state_dict().items()
    }
    safetensors.torch.save_file(state, directory / _WEIGHTS)
    config = {"widths": list(_WIDTHS), "concepts": list(judge.concepts), "threshold": THRESHOLD}
    (directory / _CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def to_signal(images: np.ndarray) -> torch.Tensor:
    """Returns images as the network reads them: uint8 [N, S, S, 3] -> float32 [N, 3, S, S] in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def labels(sampled: list[scenes.Scene]) -> np.ndarray:
    """Returns which concepts scenes show, bool [N, n_concepts], in the order of `CONCEPTS`."""
    shown = np.zeros((len(sampled), len(scenes.CONCEPTS)), bool)
    for row, scene in zip(shown, sampled, strict=True):
        for name in (*(thing.concept for thing in scene.things), *([scene.place] if scene.place else [])):
            row[scenes.CONCEPTS.index(name)] = True
    return shown
