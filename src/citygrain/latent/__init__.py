"""The latent space of a model: what its codes hold, which directions move what, how one city becomes another.

Everything works on any model with a code (`citygrain.protocols.Codec`), on those that work in such a code, and on
diffusion by `Inversion`. What can be told is told of held-out windows, and what is decoded is measured again::

    generator = citygrain.load("runs/copenhagen_los_angeles_64")
    train, held_out = (encode_places(generator, split=split) for split in ("train", "test"))
    probes = probe(train, held_out)
    path = follow(codec_of(generator), held_out.codes[:8], "cycle", [0, 1, 2, 3], train, hold=["coverage"])

Pictures are drawn by `citygrain.latent.figures`, pattern cards by `citygrain.latent.patterns`.
"""

from citygrain.latent.codes import (
    Codes,
    codec_of,
    decode,
    encode,
    encode_places,
    explained_variance,
    measures_kept,
    reconstruct,
)
from citygrain.latent.directions import CodePath, Probes, interpolate, moves, place_direction, probe, traverse
from citygrain.latent.disentanglement import Information, disentanglement
from citygrain.latent.following import follow
from citygrain.latent.inversion import Inversion
from citygrain.latent.layouts import encode_layouts
from citygrain.latent.structure import (
    Classified,
    Projection,
    classify_places,
    cluster,
    neighbours,
    project,
    taken_for,
)

__all__ = [
    "Classified",
    "CodePath",
    "Codes",
    "Information",
    "Inversion",
    "Probes",
    "Projection",
    "classify_places",
    "cluster",
    "codec_of",
    "decode",
    "disentanglement",
    "encode",
    "encode_layouts",
    "encode_places",
    "explained_variance",
    "follow",
    "interpolate",
    "measures_kept",
    "moves",
    "neighbours",
    "place_direction",
    "probe",
    "project",
    "reconstruct",
    "taken_for",
    "traverse",
]
