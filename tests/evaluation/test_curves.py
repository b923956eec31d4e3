"""What a run's log says, and that the report shows it."""

import pandas as pd

from citygrain.evaluation.curves import read_curves


def log(folder, version, rows):
    path = folder / "logs" / f"version_{version}" / "metrics.csv"
    path.parent.mkdir(parents=True)
    pd.DataFrame(rows).to_csv(path, index=False)


def test_what_was_resumed_counts_once_and_the_codec_has_its_own(tmp_path):
    log(tmp_path, 2, [{"step": 9, "train/loss": 0.5}, {"step": 9, "val/loss": 0.6}, {"step": 19, "val/loss": 0.4}])
    log(tmp_path, 10, [{"step": 19, "val/loss": 0.3}, {"step": 29, "val/loss": 0.2}])
    log(tmp_path / "codec", 0, [{"step": 4, "val/loss": 1.0}])
    assert read_curves(tmp_path) == {
        "codec": {"held-out windows": {"step": [4], "loss": [1.0]}},
        "model": {
            "training": {"step": [9], "loss": [0.5]},
            "held-out windows": {"step": [9, 19, 29], "loss": [0.6, 0.3, 0.2]},
        },
    }


def test_what_is_no_run_has_no_curves(tmp_path):
    assert read_curves("reference/cities_64") == read_curves(tmp_path / "none") == {}
    log(tmp_path, 0, [{"step": 1, "lr-AdamW": 1e-3}])
    assert read_curves(tmp_path) == {}
