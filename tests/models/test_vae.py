"""The video VAE: streaming is exact, time flows one way, memory is bounded, cost is lean, the shortcut is PCA."""

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from mutoscope.errors import InputError
from mutoscope.models import vae as vae_module
from mutoscope.models.causal import CausalConv3d
from mutoscope.models.vae import (
    MOTION_COST,
    VAE,
    VAE_PRESETS,
    VAEConfig,
    changes,
    first_frame_repeated,
    fold,
    unfold,
)

SMALL = VAEConfig(quarter_width=12, eighth_width=16, encoder_blocks=(1, 1), decoder_blocks=(1, 1))


@pytest.fixture(scope="module")
def vae() -> VAE:
    """A small VAE of which no part is zero, with statistics that are not trivial."""
    torch.manual_seed(0)
    model = VAE(SMALL).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
        model.latent_mean.normal_()
        model.latent_std.uniform_(0.5, 2)
    return model.requires_grad_(False)


def clip(frames: int, height: int = 24, width: int = 32, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(frames)
    return torch.rand(batch, 3, frames, height, width, generator=generator) * 2 - 1


# --- shapes and time


@pytest.mark.parametrize("frames", [1, 5, 17, 21])
def test_first_frame_stands_alone_then_four_to_one(vae, frames):
    video = clip(frames, batch=2)
    latent = vae.encode(video)
    assert latent.shape == (2, 16, 1 + (frames - 1) // 4, 3, 4)
    assert vae.decode(latent).shape == video.shape


@pytest.mark.parametrize("lengths", [[1] * 21, [2, 9, 10], [3, 1, 1, 16], [5, 8, 8], [20, 1], [21]])
def test_encoding_in_chunks_of_any_length_equals_the_whole(vae, lengths):
    video = clip(21)
    streamed = torch.cat(list(vae.encode_stream(video.split(lengths, dim=2))), dim=2)
    mean, _ = vae.posterior(video)
    whole = (mean - vae.latent_mean[:, None, None, None]) / vae.latent_std[:, None, None, None]
    assert (streamed - whole).abs().max() <= 1e-5
    assert (vae.encode(video) - whole).abs().max() <= 1e-5


@pytest.mark.parametrize("lengths", [[1] * 6, [2, 4], [1, 3, 2], [5, 1], [6]])
def test_decoding_in_chunks_of_any_length_equals_the_whole(vae, lengths, monkeypatch):
    latent = torch.randn(1, 16, 6, 3, 4, generator=torch.Generator().manual_seed(0))
    scaled = latent * vae.latent_std[:, None, None, None] + vae.latent_mean[:, None, None, None]
    whole = vae.reconstruct(scaled)
    pieces = list(vae.decode_stream(latent.split(lengths, dim=2)))
    assert [piece.shape[2] for piece in pieces] == [4 * n - 3 * (i == 0) for i, n in enumerate(lengths)]
    assert (torch.cat(pieces, dim=2) - whole).abs().max() <= 1e-5
    monkeypatch.setattr(vae_module, "CHUNK_POSITIONS", 24)
    assert (vae.decode(latent) - whole).abs().max() <= 1e-5


def test_a_later_frame_never_changes_the_past(vae):
    video, latent = clip(17), torch.randn(1, 16, 5, 3, 4)
    for k in range(1, 5):
        changed, later = video.clone(), latent.clone()
        changed[:, :, 4 * k - 3 :] = 0
        later[:, :, k:] = 0
        assert torch.equal(vae.encode(changed)[:, :, :k], vae.encode(video)[:, :, :k])
        assert not torch.equal(vae.encode(changed)[:, :, k], vae.encode(video)[:, :, k])
        assert torch.equal(vae.decode(later)[:, :, : 4 * k - 3], vae.decode(latent)[:, :, : 4 * k - 3])


class Peak(TorchDispatchMode):
    """Bytes of tensors made within that are alive at once, and the most there have been."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()
        self.live = self.most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor) and (pointer := tensor.untyped_storage()._cdata) not in self.seen:
                size = tensor.untyped_storage().nbytes()
                self.seen.add(pointer)
                self.live += size
                weakref.finalize(tensor.untyped_storage(), self.free, pointer, size)
        self.most = max(self.most, self.live)
        return result

    def free(self, pointer: int, size: int) -> None:
        self.seen.discard(pointer)
        self.live -= size


def peak_of(work: Callable[[], object]) -> int:
    with Peak() as peak:
        work()
    return peak.most


def drain(pieces) -> int:
    return sum(piece.shape[2] for piece in pieces)


def test_working_memory_does_not_grow_with_duration(vae, monkeypatch):
    def decoded(frames: int) -> int:
        latents = (torch.zeros(1, 16, 1, 4, 4) for _ in range(frames))
        return peak_of(lambda: drain(vae.decode_stream(latents)))

    def encoded(chunks: int) -> int:
        videos = (torch.zeros(1, 3, 1 + 3 * (i > 0), 32, 32) for i in range(chunks))
        return peak_of(lambda: drain(vae.encode_stream(videos)))

    assert 0 < decoded(3) == decoded(12)
    assert 0 < encoded(3) == encoded(12)
    # decode() also holds its result, once in pieces and once joined, but nothing else that grows.
    monkeypatch.setattr(vae_module, "CHUNK_POSITIONS", 16)
    growth = peak_of(lambda: vae.decode(torch.zeros(1, 16, 12, 4, 4))) - peak_of(
        lambda: vae.decode(torch.zeros(1, 16, 4, 4, 4))
    )
    assert growth <= 2.2 * 4 * (8 * 4 * 3 * 32 * 32)


# --- the linear shortcut


def test_a_new_vae_is_the_best_linear_codec_of_its_size():
    torch.manual_seed(0)
    mixing = torch.randn(24, 768) * torch.linspace(2, 0.1, 24)[:, None]
    blocks = torch.randn(400, 24) @ mixing * 0.05 + 0.3  # 24 dimensions through 16: something must go
    folded = blocks.reshape(4, 10, 10, 1, 768).permute(0, 4, 3, 1, 2)
    video = unfold(folded, 4, 8)
    video[:, :, :3] = video[:, :, 3:4]  # as a clip whose first frame is repeated
    model = VAE(SMALL)
    model.fit_shortcut(video[:, :, 3:])
    with torch.no_grad():
        mean, logvar = model.posterior(video[:, :, 3:])
        error = (model.reconstruct(mean) - video[:, :, 3:]).square().mean()
    rows = fold(video, 4, 8).permute(0, 2, 3, 4, 1).flatten(0, 3)
    left, scale, right = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    best = (left[:, :16] * scale[:16]) @ right[:16] + rows.mean(0)
    expected = (unfold(best.reshape(4, 10, 10, 1, 768).permute(0, 4, 3, 1, 2), 4, 8) - video)[:, :, 3:]
    assert error == pytest.approx(expected.square().mean().item(), rel=1e-3)
    assert mean.transpose(0, 1).flatten(1).std(1).sub(1).abs().max() < 0.02
    assert torch.equal(logvar, torch.full_like(logvar, -6.0))


def test_every_parameter_learns():
    torch.manual_seed(0)
    model, video = VAE(SMALL), clip(5)
    model.fit_shortcut(clip(17, batch=4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):  # a zero weight needs a step or two before gradients pass through it
        optimizer.zero_grad()
        mean, logvar = model.posterior(video)
        sample = mean + torch.randn_like(mean) * (logvar / 2).exp()
        ((model.reconstruct(sample) - video).square().mean() + 1e-3 * logvar.square().mean()).backward()
        optimizer.step()
    silent = [name for name, parameter in model.named_parameters() if not parameter.grad.any()]
    assert silent == []


# --- numbers outside: normalisation, storage, cost


def test_statistics_normalise_the_latent_and_cancel_in_the_round_trip(vae):
    video, plain = clip(9), VAE(SMALL).eval()
    plain.load_state_dict(vae.state_dict() | {"latent_mean": torch.zeros(16), "latent_std": torch.ones(16)})
    mean, _ = vae.posterior(video)
    assert torch.allclose(plain.encode(video), mean, atol=1e-5)
    expected = (mean - vae.latent_mean[:, None, None, None]) / vae.latent_std[:, None, None, None]
    assert torch.allclose(vae.encode(video), expected, atol=1e-5)
    assert torch.allclose(vae.decode(vae.encode(video)), plain.decode(plain.encode(video)), atol=1e-4)


def test_weights_stored_in_half_precision_give_the_same_pictures(vae):
    stored, video = VAE(SMALL).eval(), clip(9)
    stored.load_state_dict({key: value.half().float() for key, value in vae.state_dict().items()})
    exact, rounded = vae.decode(vae.encode(video)), stored.decode(stored.encode(video))
    assert (exact - rounded).square().mean() < 1e-4 * exact.var()


@pytest.mark.parametrize(("size", "limit"), [("tiny", 0.1), ("small", 0.1), ("base", 0.5)])
def test_presets_keep_their_budget_of_operations_per_decoded_pixel(size, limit):
    with torch.device("meta"):
        model, latent = VAE(VAE_PRESETS[size]), torch.empty(1, 16, 5, 16, 16)
    with FlopCounterMode(display=False) as counter:
        video = model.reconstruct(latent)
    assert 0 < counter.get_total_flops() / (17 * 128 * 128) / 1e6 <= limit
    assert video.shape == (1, 3, 17, 128, 128)


@pytest.mark.parametrize("size", VAE_PRESETS)
def test_no_convolution_has_three_channels(size):
    with torch.device("meta"):
        layers = [layer for layer in VAE(VAE_PRESETS[size]).modules() if isinstance(layer, CausalConv3d)]
    assert min(min(layer.weight.shape[:2]) for layer in layers) >= 16


@pytest.mark.parametrize("shape", [(2, 3, 4, 8, 16), (1, 6, 8, 16, 8)])
def test_unfold_inverts_fold(shape):
    video = torch.randn(shape)
    assert torch.equal(unfold(fold(video, 4, 8), 4, 8), video)
    assert torch.equal(first_frame_repeated(video), video[:, :, :1].expand(-1, -1, 3, -1, -1))


# --- what is refused


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 3, 16, 32, 32), "13 and 17"),
        ((1, 3, 17, 30, 32), "multiples of 8"),
        ((1, 4, 17, 32, 32), "got"),
        ((3, 17, 32, 32), "got"),
        ((1, 3, 0, 32, 32), "1 and 5"),
    ],
)
def test_other_shapes_are_refused_in_a_sentence(vae, shape, words):
    with pytest.raises(InputError, match=words):
        vae.encode(torch.zeros(shape))


def test_a_stream_that_ends_inside_a_latent_frame_is_refused(vae):
    with pytest.raises(InputError, match="2 frames after"):
        list(vae.encode_stream([clip(7)]))


# --- motion


@pytest.mark.parametrize("slow", [0.5, 0.9])
def test_lost_motion_comes_back_at_little_cost(slow):
    torch.manual_seed(1)
    vae = VAE(SMALL).eval().requires_grad_(False)
    video = clip(17, batch=4)
    vae.fit_shortcut(video)
    latent = vae.encode(video)
    vae.scale_motion(slow)
    before = vae.decode(latent)
    gain = vae.match_motion(video)
    after = vae.decode(latent)
    true, found, left = (changes(frames).square().sum() for frames in (video, before, after))
    assert gain > 1
    assert found < left <= true * (1 + 1e-5)
    error, less = ((decoded - video)[:, :, 1:].square().sum() for decoded in (before, after))
    assert less <= error * (1 + MOTION_COST + 1e-5)
    assert torch.equal(vae.encode(video), latent)
    means = [decoded[:, :, 1:].unflatten(2, (-1, 4)).mean(3) for decoded in (before, after)]
    assert (means[0] - means[1]).abs().max() <= 1e-5


@pytest.mark.parametrize("frames", [1, 17])
def test_what_stands_still_says_nothing_of_motion(vae, frames):
    still = clip(1).expand(-1, -1, frames, -1, -1)
    weights = {name: value.clone() for name, value in vae.state_dict().items()}
    assert vae.match_motion(still) == 1.0
    assert all(torch.equal(value, weights[name]) for name, value in vae.state_dict().items())
