"""What a checkpoint says of the windows that its model was trained on, and the same windows again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from citygrain.data.cityraster import CityRaster
from citygrain.data.dataset import CityWindows, find_place
from citygrain.data.rules import UNCHANGED, Augmentation, Balance, Rules
from citygrain.errors import CheckpointError
from citygrain.geo.rasterize import Grid
from citygrain.geo.stroke_code import Frame
from citygrain.protocols import Trained
from citygrain.spec import LayoutSpec

if TYPE_CHECKING:
    from citygrain.data.datamodule import CityDataModule


@dataclass(frozen=True)
class TrainedOn:
    """The windows that a model was trained on.

    Attributes
    ----------
    spec
        Channels, conditions and places of the windows.
    rules
        Size, resolution, and which windows are allowed.
    augmentation
        How train windows were varied.
    frame
        Whether windows were turned into the frame of their streets.
    balance
        How train windows were shared out among the places.
    seed
        Seed of the train windows.
    grids
        Name of a place → the cells of its city raster, in metres of its UTM CRS.
    allow_unknown
        Whether places took part that do not know one of the channels.
    known_to_all
        Of a model of several parts, the places that all parts know; None for other models. They come first in `spec`.
    """

    spec: LayoutSpec
    rules: Rules
    augmentation: Augmentation
    frame: Frame
    balance: Balance
    seed: int
    grids: Mapping[str, Grid]
    allow_unknown: bool = False
    known_to_all: tuple[str, ...] | None = None

    @classmethod
    def of(cls, generator: Trained) -> TrainedOn:
        """Read what a trained generator says of its windows, by its `CityDataModule.provenance()`.

        Raises
        ------
        CheckpointError
            When it says nothing of them.
        """
        try:
            made = generator.provenance["data"]
            grids = {}
            for name, place in made["places"].items():
                (left, top), (width, height) = place["grid"]["left_top"], place["grid"]["width_height"]
                grids[name] = Grid(place["crs"], left, top, place["resolution_m"], width, height)
            return cls(
                spec=generator.spec,
                rules=Rules(**made["rules"]),
                augmentation=Augmentation(**made.get("augmentation", {})),
                frame=made.get("frame", "none"),
                balance=made["balance"],
                seed=made["seed"],
                grids=grids,
                allow_unknown=made.get("allow_unknown", False),
                known_to_all=tuple(made["known_to_all"]) if "known_to_all" in made else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                "The checkpoint does not say which windows its model was trained on.",
                got=f"{type(error).__name__}: {error}",
                remedy="take a model that citygrain train has made",
            ) from error

    @property
    def places(self) -> tuple[str, ...]:
        """Names of the places whose windows have all channels, in the order of `spec.places`."""
        return self.spec.places if self.known_to_all is None else self.known_to_all

    def windows(
        self,
        split: str,
        root: str | Path = "data/cities",
        places: Sequence[str | CityRaster] | None = None,
        *,
        limit: int | None = None,
        augmentation: Augmentation = UNCHANGED,
        seed: int | None = None,
    ) -> CityWindows:
        """Return windows of one split by the model's rules, in its channels.

        Parameters
        ----------
        split
            `train`, `val`, `test`, or `all` for places that the model never saw.
        root
            Folder of all city rasters.
        places
            Names of prepared places under `root`, folders, or opened ones; None for the places of the model.
        limit
            At most this many windows of a fixed grid, evenly spread; all when None.
        augmentation
            How train windows are varied. Unless told otherwise they are taken as they lie in the city.
        seed
            Seed of the train windows; None for the one of training.

        Raises
        ------
        DataError
            When a place is not prepared, lacks a channel, or has no such window.
        """
        chosen = self.places if places is None else places
        return CityWindows(
            [place if isinstance(place, CityRaster) else find_place(Path(root), place) for place in chosen],
            split,
            self.rules,
            augmentation=augmentation,
            frame=self.frame,
            channels=self.spec.channels,
            balance=self.balance,
            limit=limit,
            seed=self.seed if seed is None else seed,
            raster_format=self.spec.raster_format,
            allow_unknown=self.allow_unknown,
        )

    def data(
        self,
        root: str | Path = "data/cities",
        places: Sequence[str] | None = None,
        *,
        val_windows: int = 512,
        test_windows: int = 512,
    ) -> CityDataModule:
        """Return the data module of the windows: those that the model was trained on, and those that were held out.

        Parameters
        ----------
        root
            Folder of all city rasters.
        places
            Names of prepared places under `root`, or folders; None for the places of the model.
        val_windows, test_windows
            At most this many windows of the held-out grids.

        Raises
        ------
        DataError
            When a place is not prepared or lacks a channel.
        """
        from citygrain.data.datamodule import CityDataModule  # noqa: PLC0415  (it imports Lightning)

        spec = self.spec
        return CityDataModule(
            list(self.places if places is None else places),
            root,
            **asdict(self.rules),
            **asdict(self.augmentation),
            frame=self.frame,
            channels=spec.channels,
            scalars=spec.scalars,
            maps=spec.maps,
            map_px=spec.map_px,
            balance=self.balance,
            seed=self.seed,
            val_windows=val_windows,
            test_windows=test_windows,
            raster_format=spec.raster_format,
            allow_unknown=self.allow_unknown,
        )
