r"""Training and sampling beside other libraries: the same windows, as many parameters, as many steps.

    pip install --no-deps --target out/peers/packages pythae==0.1.2 imageio \
        denoising-diffusion-pytorch==2.3.4 ema-pytorch accelerate
    PYTHONPATH=out/peers/packages python benchmarks/peers.py

`--no-deps`, because their requirements would replace torch. diffusers is among this project's development packages.

- The variational autoencoder, against `pythae.models.VAE` with the very same encoder and decoder networks, and again
  with wider ones, so that it has as many parameters as ours with its prior: windows a second in training, layouts a
  second in sampling, and how much of the held-out windows' variance a reconstruction explains after the same number of
  steps.
- Diffusion of cells, against `denoising_diffusion_pytorch` (its U-Net and its process) and against diffusers (its
  `UNet2DModel` and schedulers): windows a second in training, and layouts a second with as many evaluations of the
  network. Widths are chosen so that the numbers of parameters agree within a tenth.

All take turns in the same process, `--rounds` times; the medians are compared, beside the multiplications and additions
of one step by torch's counter. Ours carries the conditions along, theirs are unconditional.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.machinery
import json
import statistics
import sys
import time
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from citygrain.data.datamodule import CityDataModule
from citygrain.models.diffusion import Diffusion
from citygrain.models.variational_autoencoder import VariationalAutoencoder
from citygrain.networks.resnet import ResNetDecoder, ResNetEncoder
from citygrain.networks.unet import UNet
from citygrain.protocols import Noise
from citygrain.samplers.diffusion import Euler
from citygrain.spec import Batch, Conditions, LayoutSpec
from citygrain.support.config import load_config
from citygrain.support.files import write_text

CODE = 8
Step = Callable[[Batch], None]
Draw = Callable[[int], Tensor]


def optimised(parameters: Any, loss: Callable[[Batch], Tensor]) -> Step:
    """Return one step of training, the same for all: AdamW on a loss, gradients clipped to 1."""
    trained = list(parameters)
    optimizer = torch.optim.AdamW(trained, lr=1e-3)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        torch.autograd.backward(loss(batch))
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    return step


def peer(module: str) -> Any:
    """Import a module of another library, of whose types nothing is known."""
    return importlib.import_module(module)


def our_vae(spec: LayoutSpec) -> tuple[nn.Module, Step, Draw, Callable[[Tensor], Tensor]]:
    model = VariationalAutoencoder(
        spec, encoder=partial(ResNetEncoder, widths=(96,)), decoder=partial(ResNetDecoder, widths=(96,), fine_width=32),
        code_channels=CODE,
    )  # fmt: skip

    def draw(n: int) -> Tensor:
        return model.sample(Conditions.empty(spec, n), noise=Noise(range(n)))

    step = optimised(model.parameters(), lambda batch: model.loss(batch.layout, batch.conditions)["loss"])
    return model, step, draw, lambda x: model.decode(model.encode(x))


def pythae_vae(spec: LayoutSpec, width: int = 96) -> tuple[nn.Module, Step, Draw, Callable[[Tensor], Tensor]]:
    models, networks = peer("pythae.models"), peer("pythae.models.nn")
    output = peer("pythae.models.base.base_utils").ModelOutput
    channels, side = len(spec.channels), spec.size_px // 4

    class Encoder(networks.BaseEncoder):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = ResNetEncoder(in_channels=channels, out_channels=2 * CODE, widths=(width,))

        def forward(self, x: Tensor) -> Any:
            mean, log_variance = self.network(x * 2 - 1).chunk(2, 1)
            return output(embedding=mean.flatten(1), log_covariance=log_variance.flatten(1))

    class Decoder(networks.BaseDecoder):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = ResNetDecoder(in_channels=CODE, out_channels=channels, widths=(width,), fine_width=32)

        def forward(self, z: Tensor) -> Any:
            return output(reconstruction=self.network(z.view(-1, CODE, side, side)).sigmoid())

    config = models.VAEConfig(input_dim=spec.shape, latent_dim=CODE * side**2, reconstruction_loss="bce")
    model = models.VAE(config, encoder=Encoder(), decoder=Decoder())
    step = optimised(model.parameters(), lambda batch: model({"data": batch.layout}).loss)
    sampler = peer("pythae.samplers").NormalSampler(model=model)
    return model, step, lambda n: sampler.sample(num_samples=n, return_gen=True), model.reconstruct


def our_diffusion(spec: LayoutSpec, evaluations: int) -> tuple[nn.Module, Step, Draw]:
    network = partial(UNet, width=48, widths=(1, 2, 3), blocks=1, attention=(-1,), head=32)
    model = Diffusion(spec, network=network, sampler=Euler(steps=evaluations), embedding=128)

    def draw(n: int) -> Tensor:
        return model.sample(Conditions.empty(spec, n), noise=Noise(range(n)))

    return model, optimised(model.parameters(), lambda batch: model.loss(batch.layout, batch.conditions)["loss"]), draw


def lucidrains_diffusion(spec: LayoutSpec, evaluations: int) -> tuple[nn.Module, Step, Draw]:
    for name in ("torchvision", "torchvision.transforms", "torchvision.utils"):
        if name not in sys.modules:  # it reads and writes image files with it, which nobody asks for here
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
    sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]  # type: ignore[attr-defined]
    sys.modules["torchvision"].utils = sys.modules["torchvision.utils"]  # type: ignore[attr-defined]
    theirs = peer("denoising_diffusion_pytorch")
    network = theirs.Unet(dim=48, channels=len(spec.channels), dim_mults=(1, 2, 3), attn_heads=3, attn_dim_head=32)
    model = theirs.GaussianDiffusion(
        network, image_size=spec.size_px, timesteps=1000, sampling_timesteps=evaluations, objective="pred_v"
    )
    return model, optimised(model.parameters(), lambda b: model(b.layout)), lambda n: model.sample(batch_size=n)


def diffusers_diffusion(spec: LayoutSpec, evaluations: int) -> tuple[nn.Module, Step, Draw]:
    theirs, channels = peer("diffusers"), len(spec.channels)
    network = theirs.UNet2DModel(
        sample_size=spec.size_px, in_channels=channels, out_channels=channels, layers_per_block=1, norm_num_groups=16,
        block_out_channels=(48, 96, 144), down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"), attention_head_dim=36,
    )  # fmt: skip
    scheduler = theirs.DDIMScheduler(num_train_timesteps=1000)

    def loss(batch: Batch) -> Tensor:
        clean, noise = batch.layout * 2 - 1, torch.randn_like(batch.layout)
        level = torch.randint(0, 1000, (len(clean),))
        return nn.functional.mse_loss(network(scheduler.add_noise(clean, noise, level), level).sample, noise)

    @torch.no_grad()
    def draw(n: int) -> Tensor:
        scheduler.set_timesteps(evaluations)
        x = torch.randn(n, *spec.shape)
        for level in scheduler.timesteps:
            x = scheduler.step(network(x, level).sample, level, x).prev_sample
        return (x / 2 + 0.5).clamp(0, 1)

    return network, optimised(network.parameters(), loss), draw


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--kinds", nargs="+", choices=("autoencoder", "diffusion"), default=["autoencoder", "diffusion"]
    )
    parser.add_argument(
        "--steps", type=int, default=150, help="of the autoencoders, before reconstructions are compared"
    )
    parser.add_argument("--evaluations", type=int, default=12, help="of the diffusion networks for a layout")
    parser.add_argument("--data", type=Path, default=Path("data/cities"))
    parser.add_argument("--out", type=Path, default=Path("out/peers"))
    args = parser.parse_args()

    chosen = load_config("train", ["experiment=variational_autoencoder"])["data"]
    data = CityDataModule(root=args.data, **chosen)
    spec, size = data.prepare_spec(), chosen["batch_size"]
    batches = [data.batch("train", range(i * size, (i + 1) * size)) for i in range(args.steps)]
    held_out = data.batch("val", range(data.val_size)).layout
    sample = torch.cat([batch.layout for batch in batches[:16]])
    report: dict[str, Any] = {}

    if "autoencoder" in args.kinds:
        torch.manual_seed(0)
        vaes = {
            "citygrain": our_vae(spec),
            "pythae": pythae_vae(spec),
            "pythae, as many parameters": pythae_vae(spec, width=106),
        }
        vaes["citygrain"][0].measure_data(sample)  # type: ignore[operator]
        for name, (model, step, _, reconstruct) in vaes.items():
            for batch in batches:
                step(batch)
            model.eval()
            with torch.no_grad():
                error = (reconstruct(held_out) - held_out).square().mean((0, 2, 3))
            report[f"autoencoder, {name}"] = {
                "explained": (1 - error / held_out.var((0, 2, 3)).clamp_min(1e-9)).mean().item()
            }
            model.train()
        compare(
            report, "autoencoder", {name: parts[:3] for name, parts in vaes.items()}, batches, args.rounds, drawn=64
        )
    if "diffusion" in args.kinds:
        diffusions = {
            "citygrain": our_diffusion(spec, args.evaluations),
            "denoising-diffusion-pytorch": lucidrains_diffusion(spec, args.evaluations),
            "diffusers": diffusers_diffusion(spec, args.evaluations),
        }
        diffusions["citygrain"][0].measure_data(sample)  # type: ignore[operator]
        compare(report, "diffusion", diffusions, batches, args.rounds, drawn=8)

    write_text(args.out / "peers.json", json.dumps(report, indent=1) + "\n")
    shown = Table(title=f"medians of {args.rounds} rounds")
    for heading in ("", "parameters", "GFLOP/step", "windows/s", "ours is", "layouts/s", "ours is", "explained"):
        shown.add_column(heading)
    for name, row in report.items():
        ours = report[f"{name.split(', ')[0]}, citygrain"]
        shown.add_row(
            name,
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['gflop_per_step']:.1f}",
            f"{row['windows_per_second']:.1f}",
            f"{ours['windows_per_second'] / row['windows_per_second']:.2f} ×",
            f"{row['layouts_per_second']:.1f}",
            f"{ours['layouts_per_second'] / row['layouts_per_second']:.2f} ×",
            f"{row['explained']:.2f}" if "explained" in row else "–",
        )
    Console(width=110).print(shown)


def compare(
    report: dict[str, Any], kind: str, models: dict[str, Any], batches: list[Batch], rounds: int, drawn: int
) -> None:
    """Let models take turns at a step of training and at drawing, and report the medians."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    for turn in range(rounds + 1):  # the first warms up
        for name, (model, step, draw) in models.items():
            model.train()
            training = timed(partial(step, batches[turn % len(batches)]))
            model.eval()
            sampling = timed(partial(draw, drawn))
            if turn:
                seconds[name].append((training, sampling))
    for name, (model, step, _) in models.items():
        training, sampling = (statistics.median(column) for column in zip(*seconds[name], strict=True))
        row = report.setdefault(f"{kind}, {name}", {})
        row["parameters"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
        model.train()
        with FlopCounterMode(display=False) as counter:
            step(batches[0])
        row["gflop_per_step"] = counter.get_total_flops() / 1e9
        row["windows_per_second"] = len(batches[0].layout) / training
        row["layouts_per_second"] = drawn / sampling


if __name__ == "__main__":
    main()
