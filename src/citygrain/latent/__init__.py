"""The latent space of a model: what codes hold, which directions change which measure, and paths from city to city.

It works for every model with a code (`citygrain.protocols.Codec`), for models that work in the code of a codec, and for
diffusion models by `Inversion`. Everything is judged on held-out windows. Decoded layouts are measured again::

    generator = citygrain.load("runs/copenhagen_los_angeles_64")
    train, held_out = (encode_places(generator, split=split) for split in ("train", "test"))
    probes = fit_probes(train, held_out)
    path = follow(find_codec(generator), held_out.codes[:8], "cycle", [0, 1, 2, 3], train, hold=["coverage"])

`citygrain.latent.figures` draws pictures, `citygrain.latent.patterns` pattern cards.
"""

from citygrain.latent.codes import Codes, find_codec
from citygrain.latent.directions import (
    CodePath,
    Probes,
    find_place_direction,
    fit_probes,
    interpolate,
    measure_changes,
    traverse,
)
from citygrain.latent.disentanglement import Disentanglement, measure_disentanglement
from citygrain.latent.encoding import decode, encode_layouts, encode_places, encode_windows
from citygrain.latent.following import follow
from citygrain.latent.inversion import Inversion
from citygrain.latent.reconstruction import compare_explained_variance, reconstruct, score_decoded_measures
from citygrain.latent.structure import (
    Classification,
    Projection,
    classify_places,
    classify_unseen_places,
    cluster_codes,
    find_neighbours,
    project_codes,
)

__all__ = [
    "Classification",
    "CodePath",
    "Codes",
    "Disentanglement",
    "Inversion",
    "Probes",
    "Projection",
    "classify_places",
    "classify_unseen_places",
    "cluster_codes",
    "compare_explained_variance",
    "decode",
    "encode_layouts",
    "encode_places",
    "encode_windows",
    "find_codec",
    "find_neighbours",
    "find_place_direction",
    "fit_probes",
    "follow",
    "interpolate",
    "measure_changes",
    "measure_disentanglement",
    "project_codes",
    "reconstruct",
    "score_decoded_measures",
    "traverse",
]
