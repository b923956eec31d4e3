"""A trained model as an object: its methods are the verbs of the command line, with the same keywords."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from citygrain.checkpoint import export_checkpoint, load, read_checkpoint
from citygrain.data.cityraster import CityRaster
from citygrain.evaluation.options import Classifier, Disruption, Embedding, Memorisation, Obedience
from citygrain.generation.edits import Edit, edit
from citygrain.generation.georeference import Georeference, lay_grids
from citygrain.generation.given import Given
from citygrain.generation.requests import Level
from citygrain.generation.sampling import sample
from citygrain.generation.site import Ground
from citygrain.layouts import Layouts
from citygrain.protocols import Codec, Sampler, Trained
from citygrain.samplers.areas import Begin
from citygrain.spec import LayoutSpec
from citygrain.support.devices import SINGLE, choose_device

if TYPE_CHECKING:
    from citygrain.evaluation.report import Report
    from citygrain.latent.codes import Codes

# Judging and the latent space bring Lightning, momepy and scikit-learn, which take seconds to load. Who only draws does
# not wait for them: they are imported where they are used.


class Model:
    """A trained model, ready to draw.

    Every verb of the command line that takes a checkpoint is a method here, with the same keywords. If a family cannot
    do something, its models say so in an error.

    Parameters
    ----------
    checkpoint
        A run folder, the folder of an exported model, a `.ckpt` file, or `reference/<name>` for a model that comes with
        citygrain.
    device
        `auto` (a GPU where there is one), `cpu`, `cuda`.

    Attributes
    ----------
    checkpoint
        Where the model was read from, as given.
    generator
        The model itself: a `torch.nn.Module` that is a `citygrain.protocols.Generator`.

    Raises
    ------
    CheckpointError
        When the checkpoint is missing or damaged, or its configuration may not be executed.
    ConfigError
        For a device that this machine does not have.

    Examples
    --------
    >>> model = citygrain.Model("reference/cities_64")  # doctest: +SKIP
    >>> layouts = model.sample(4, coverage=0.3, cycle="p90", place="copenhagen")  # doctest: +SKIP
    """

    def __init__(self, checkpoint: str | Path, *, device: str = "auto") -> None:
        self.checkpoint = str(checkpoint)
        self.generator: Trained = load(checkpoint, device=choose_device(device))

    @property
    def spec(self) -> LayoutSpec:
        """Channels, size and resolution of the layouts, and the conditions that can be requested."""
        return self.generator.spec

    @property
    def sampler(self) -> Sampler:
        """The sampler that is used if no other is given; its fields are the settings that can be changed."""
        return self.generator.sampler

    @property
    def codec(self) -> Codec:
        """What turns layouts into codes and back: the model itself, or the frozen codec in whose code it works.

        Raises
        ------
        CapabilityError
            For a model without a code; `citygrain.latent.Inversion` gives one to a diffusion model.
        """
        from citygrain.latent.codes import find_codec  # noqa: PLC0415

        return find_codec(self.generator)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Places, versions and hardware of the training, and how far it had come."""
        return self.generator.provenance

    def __repr__(self) -> str:
        """Say what the model is: family, layouts, conditions, places."""
        spec = self.spec
        return (
            f"Model({self.checkpoint!r}: {type(self.generator).__name__}, {spec.size_px} × {spec.size_px} cells of "
            f"{spec.resolution_m:g} m; channels {', '.join(spec.channels)}; conditions {', '.join(spec.scalars)}; "
            f"places {', '.join(spec.places)})"
        )

    def sample(
        self,
        n: int | None = None,
        *,
        seed: int = 0,
        attempts: int = 1,
        extent_m: Sequence[float] | None = None,
        given: Given | str | None = None,
        georeference: str | Georeference = Georeference(),
        sampler: Sampler | Mapping[str, Any] | None = None,
        precision: str = SINGLE,
        batch_size: int = 64,
        data: str | Path = "data/cities",
        **conditions: Level | Sequence[Level],
    ) -> Layouts:
        """Draw layouts that meet requested conditions.

        Parameters
        ----------
        n
            How many layouts are drawn; 16 by default. If conditions have lists of levels: how many of each combination;
            1 by default.
        seed
            Layout *i* is drawn with the seed `seed + i`, whatever the batch size.
        attempts
            How often a layout that misses its request is drawn, with a corrected request; the nearest is kept.
        extent_m
            Width and height in metres of areas that are larger than a window; families that can keep parts of a layout
            draw them.
        given
            For a model that is given channels: the prepared place whose windows the channels are taken from, or a
            `Given`.
        georeference
            Where the first layout lies: a training place, or a `Georeference`. The others lie to the east and south of
            it.
        sampler
            Another sampler, or settings of the model's own sampler that are changed, such as `{"steps": 24}`.
        precision
            `32-true`; `bf16-mixed` is faster where it is native; or `auto`.
        batch_size
            How many layouts are drawn at once.
        data
            Folder of prepared places.
        conditions
            What is requested. `coverage=0.3` is a value in the unit of the measure, `cycle="p90"` a percentile of the
            training windows. `green={"from": 0, "to": 0.4, "towards": "east"}` varies over the layout, and so does a
            `PaintedMap` or the path of one. Of a list of levels, each level is drawn. `place` is the name of a training
            place.

        Returns
        -------
        Layouts
            The layouts, with requested and measured values.

        Raises
        ------
        ConditionError
            For a condition that the model does not know.
        ConfigError, CapabilityError, DataError
            See `citygrain.generation.sampling.sample`.
        """
        return sample(
            self.generator,
            n,
            conditions=conditions,
            seed=seed,
            attempts=attempts,
            extent_m=extent_m,
            given=given if isinstance(given, Given) else Given(given),
            georeference=georeference if isinstance(georeference, Georeference) else Georeference(georeference),
            sampler=sampler,
            precision=precision,
            batch_size=batch_size,
            data=data,
        )

    def edit(
        self,
        place: str | Path | CityRaster,
        *,
        at: Sequence[float] | None = None,
        size_m: float = 200.0,
        site: Ground | None = None,
        context_m: float = 128.0,
        keep: Sequence[str] = (),
        strength: float = 1.0,
        begin: Begin = "noise",
        n: int = 3,
        seed: int = 0,
        overlap: float = 0.5,
        sampler: Sampler | Mapping[str, Any] | None = None,
        batch_size: int = 16,
        data: str | Path = "data/cities",
        like: str | None = None,
        **conditions: Level,
    ) -> Edit:
        """Redraw a site of a prepared place inside its real surroundings.

        Parameters
        ----------
        place
            The prepared place that the site lies in.
        at, size_m
            A square site: longitude and latitude of its middle, and its edge in metres.
        site
            Instead of `at`: a file with the polygon of the site, a polygon in degrees, or a table of polygons in any
            CRS, such as a GeoDataFrame of osmnx.
        context_m
            How many metres around the site the model sees, at least.
        keep
            Channels that are kept on the site, too.
        strength, begin
            1 redraws the site; less begins from what is there, and changes less. `begin` says how: `noise` adds noise
            to what is there, `inversion` inverts it, which changes least.
        n
            How often the site is redrawn, each time differently.
        seed
            Redrawn layout *i* has the seed `seed + i`.
        overlap
            Share of a window that it has in common with the next window, if the site takes several windows.
        sampler
            Another sampler, or settings of the model's own sampler that are changed.
        batch_size
            How many windows are drawn at once.
        data
            Folder of prepared places.
        like
            The training place that the site should resemble: `conditions.place` of the command line.
        conditions
            What is requested of the site, as for `sample`.

        Returns
        -------
        Edit
            The layouts before and after, and what is measured on them.

        Raises
        ------
        DataError
            When the place is not prepared, or the site lies outside it.
        ConfigError, ConditionError, CapabilityError
            When it is not clear where the site is, or for what the model cannot do or does not know.
        """
        return edit(
            self.generator,
            place,
            conditions={**conditions, "place": like},
            at=at,
            size_m=size_m,
            site=site,
            context_m=context_m,
            keep=keep,
            strength=strength,
            begin=begin,
            n=n,
            seed=seed,
            overlap=overlap,
            sampler=sampler,
            batch_size=batch_size,
            data=data,
        )

    def evaluate(
        self,
        *,
        n: int = 1024,
        against: str = "test",
        places: Sequence[str] | None = None,
        ask: Sequence[str] | None = None,
        resolution_m: float | None = None,
        channels: Sequence[str] | None = None,
        raster_format: int | None = None,
        seed: int = 0,
        batch_size: int = 64,
        precision: str = SINGLE,
        workers: int | None = None,
        out: str | Path = "out/evaluation",
        bootstrap: int = 200,
        embedding: Embedding = Embedding(),
        classifier: Classifier = Classifier(),
        memorisation: Memorisation = Memorisation(),
        obedience: Obedience = Obedience(),
        disrupt: bool = False,
        disruption: Disruption = Disruption(),
        cut_and_paste: bool = True,
        sampler: Sampler | Mapping[str, Any] | None = None,
        data: str | Path = "data/cities",
    ) -> Report:
        """Judge the model against held-out windows, and write the report.

        Its parameters and errors are those of `citygrain.evaluation.judge.evaluate`.

        Returns
        -------
        Report
            All figures; a notebook shows them as tables. `report.html` in `out` has the pictures, too.
        """
        from citygrain.evaluation.judge import evaluate  # noqa: PLC0415

        return evaluate(
            self.generator,
            n=n,
            against=against,
            places=places,
            ask=ask,
            resolution_m=resolution_m,
            channels=channels,
            raster_format=raster_format,
            seed=seed,
            batch_size=batch_size,
            precision=precision,
            workers=workers,
            out=out,
            bootstrap=bootstrap,
            embedding=embedding,
            classifier=classifier,
            memorisation=memorisation,
            obedience=obedience,
            disrupt=disrupt,
            disruption=disruption,
            cut_and_paste=cut_and_paste,
            sampler=sampler,
            data=data,
            checkpoint=self.checkpoint,
        )

    def export(
        self,
        out: str | Path,
        *,
        half: bool = False,
        shard_mb: float | None = None,
        evaluation: str | Path | Report | None = None,
    ) -> Path:
        """Write the model for others: safetensors, configuration and model card.

        Parameters
        ----------
        out
            The folder that is written; `Model` and `citygrain.load` take it.
        half
            Whether the weights are written in half precision, which takes half the space.
        shard_mb
            Weights of more megabytes are split into files of at most this size. None writes one file.
        evaluation
            The report of this model, or its folder: its figures are written on the model card.

        Raises
        ------
        ConfigError
            For a `shard_mb` that is not above 0.
        DataError
            When the evaluation is missing or damaged, or belongs to another model.
        """
        from citygrain.evaluation.report import Report  # noqa: PLC0415

        checkpoint = read_checkpoint(self.checkpoint)
        report = evaluation if isinstance(evaluation, Report) or evaluation is None else Report.read(evaluation)
        if report is not None:
            report.check_model(checkpoint)
        return export_checkpoint(checkpoint, Path(out), half=half, shard_mb=shard_mb, report=report)

    def encode(self, layouts: Layouts) -> NDArray[np.float32]:
        """Return the codes `(N, *code_shape)` of layouts.

        Raises
        ------
        CapabilityError
            For a model without a code; `citygrain.latent.Inversion` gives one to a diffusion model.
        DataError
            For layouts that lack a channel of the model, or have another resolution or size.
        """
        from citygrain.latent.encoding import encode_cells  # noqa: PLC0415

        return encode_cells(self.codec, layouts)

    def decode(self, codes: NDArray[np.float32]) -> Layouts:
        """Return the layouts of codes `(N, *code_shape)`, side by side at the first training place.

        Raises
        ------
        CapabilityError
            For a model without a code.
        """
        from citygrain.latent.encoding import decode  # noqa: PLC0415

        cells = (decode(self.codec, codes) * 255).round().astype(np.uint8)
        spec = self.spec
        grids = lay_grids(self.generator, len(cells))
        return Layouts(cells, spec.channels, spec.resolution_m, grids, raster_format=spec.raster_format)

    def encode_places(
        self,
        places: Sequence[str] | None = None,
        *,
        split: str = "train",
        count: int | None = None,
        forms: bool = False,
        data: str | Path = "data/cities",
    ) -> Codes:
        """Encode windows of prepared places, see `citygrain.latent.encode_places`."""
        from citygrain.latent.encoding import encode_places  # noqa: PLC0415

        return encode_places(self.generator, data, split, count=count, places=places, forms=forms)
