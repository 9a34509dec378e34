"""The diffusion transformer: shapes, equalities between its forms, parity with Wan as diffusers has it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mutoscope.errors import InputError
from mutoscope.models.dit import DIT_PRESETS, PLACES, DiT, DiTConfig, TextCache, latent_times
from mutoscope.models.text import Text, TextConfig, TextEncoder, train_tokenizer

BUCKETS = [  # latents of 64x64x1, 64x64x17, portrait, landscape, 96x96x33, 128x128x65, 80x112x21
    (1, 8, 8),
    (5, 8, 8),
    (5, 10, 6),
    (5, 6, 10),
    (9, 12, 12),
    (17, 16, 16),
    (6, 10, 14),
]
SMALL = DiTConfig(width=48, depth=2, heads=2, mlp_width=96, text_width=20, channels=4)
FINAL = replace(SMALL, final_hidden=6)
WAN_SMALL = replace(
    DIT_PRESETS["wan2.1-t2v-1.3b"], width=48, depth=2, heads=2, mlp_width=80, text_width=20, channels=4
)

IN_CONTEXT = replace(SMALL, modulation="in_context")
ARMS = [replace(SMALL, modulation="plain"), IN_CONTEXT, replace(SMALL, positions="learned")]


def lively(config: DiTConfig, seed: int = 0) -> DiT:
    """A DiT whose zeros are random, so that every part has an effect."""
    torch.manual_seed(seed)
    dit = DiT(config).eval()
    with torch.no_grad():
        for parameter in dit.parameters():
            if parameter.abs().max() == 0 or parameter.ndim == 1:
                parameter.normal_(std=0.2)
    return dit


def clips(shapes: list[tuple[int, int, int]]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Latents, timesteps per latent frame, texts of different lengths."""
    generator = torch.Generator().manual_seed(1)
    latents = [torch.randn(4, *shape, generator=generator) for shape in shapes]
    timesteps = [torch.rand(shape[0], generator=generator) * 1000 for shape in shapes]
    texts = [torch.randn(3 + i % 3, 20, generator=generator) for i in range(len(shapes))]
    return latents, timesteps, texts


@pytest.mark.parametrize("preset", DIT_PRESETS)
def test_every_preset_on_every_bucket(preset: str) -> None:
    with torch.device("meta"):
        dit = DiT(replace(DIT_PRESETS[preset], depth=2))  # blocks are all alike
        for shape in BUCKETS:
            latent = torch.empty(2, dit.config.channels, *shape)
            text = torch.empty(2, 11, dit.config.text_width)
            for timestep in (torch.empty(2), torch.empty(2, shape[0])):
                assert dit(latent, timestep, text).shape == latent.shape


@pytest.mark.parametrize(
    ("preset", "billions"),
    [("tiny", 0.009), ("wan2.1-t2v-1.3b", 1.419), ("wan2.2-ti2v-5b", 5.000), ("wan2.1-t2v-14b", 14.288)],
)
def test_parameter_counts(preset: str, billions: float) -> None:
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in DiT(DIT_PRESETS[preset]).parameters())
    assert round(count / 1e9, 3) == billions


def test_starts_as_zero_with_identity_blocks() -> None:
    dit = DiT(SMALL)
    seen = []
    for block in dit.blocks:
        block.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    out = dit(torch.randn(2, 4, 3, 4, 4), torch.rand(2) * 1000, torch.randn(2, 5, 20))
    assert out.abs().max() == 0
    assert len(seen) == SMALL.depth
    for before, after in seen:
        assert torch.equal(before, after)


@pytest.mark.parametrize("config", [SMALL, FINAL])
def test_every_parameter_learns_after_two_steps(config: DiTConfig) -> None:
    torch.manual_seed(0)
    dit = DiT(config)
    optimizer = torch.optim.SGD(dit.parameters(), lr=0.1)
    latent, text, mask = torch.randn(4, 4, 3, 4, 4), torch.randn(4, 5, 20), torch.ones(4, 5, dtype=torch.bool)
    for _ in range(3):  # the head moves first, then the gates, then what is behind the gates
        optimizer.zero_grad()
        prediction = dit(
            latent, torch.tensor([0.0, 300, 600, 999]), text, mask, torch.tensor([8.0, 12, 16, 24])
        )
        (prediction - latent).square().mean().backward()
        optimizer.step()
    for name, parameter in dit.named_parameters():
        assert parameter.grad is not None, name
        if not name.endswith("key.bias"):
            assert parameter.grad.abs().max() > 0, name


def test_training_from_scratch_is_stable_at_the_recipe_rate() -> None:
    torch.manual_seed(0)
    dit = DiT(SMALL)
    optimizer = torch.optim.AdamW(dit.parameters(), lr=2e-3)
    latent, text = torch.randn(8, 4, 1, 4, 4), torch.randn(8, 5, 20)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (dit(latent, torch.zeros(8), text) - latent).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert max(losses) < 1.05 * losses[0]


@pytest.mark.parametrize("config", [SMALL, WAN_SMALL, FINAL, *ARMS])
def test_constant_frame_timesteps_equal_one_per_clip(config: DiTConfig) -> None:
    dit = lively(config)
    latent, text, timestep = torch.randn(2, 4, 3, 4, 6), torch.randn(2, 5, 20), torch.tensor([10.0, 700.0])
    with torch.no_grad():
        per_frame = dit(latent, timestep[:, None].expand(2, 3), text)
        torch.testing.assert_close(per_frame, dit(latent, timestep, text), rtol=1e-5, atol=1e-5)


def test_each_frame_has_its_own_timestep() -> None:
    dit = lively(SMALL)
    latent, text = torch.randn(1, 4, 3, 4, 4), torch.randn(1, 5, 20)
    with torch.no_grad():
        change = dit(latent, torch.tensor([[0.0, 500, 500]]), text) - dit(
            latent, torch.full((1, 3), 500.0), text
        )
    moved = change.abs().mean((0, 1, 3, 4))
    assert moved.min() > 0
    assert moved[0] > 1.5 * moved[1:].max()


@pytest.mark.parametrize("config", ARMS)
def test_every_arm_of_the_ablations_learns_all_that_it_has(config: DiTConfig) -> None:
    """Timestep, pooled text and places reach the prediction; the arms differ from the default as they should."""
    dit, latent, text = lively(config), torch.randn(2, 4, 3, 4, 4), torch.randn(2, 5, 20)
    fps = torch.tensor([8.0, 24.0]) if config.positions == "seconds" else None
    told = [dit(latent, torch.full((2,), at), text, None, fps) for at in (5.0, 900.0)]
    assert (told[0] - told[1]).abs().max() > 1e-3
    other = dit(latent, torch.full((2,), 5.0), replace_pooled(dit, text), None, fps)
    assert (told[0] - other).abs().max() > 1e-3
    told[1].square().mean().backward()
    for name, parameter in dit.named_parameters():
        assert parameter.grad is not None, name


def replace_pooled(dit: DiT, text_BLD: Tensor) -> TextCache:
    cache = dit.cache_text(text_BLD)
    assert cache.pooled_BD is not None
    return replace(cache, pooled_BD=-cache.pooled_BD)


def test_plain_adaln_is_gated_adaln_with_open_gates() -> None:
    plain, gated = lively(replace(SMALL, modulation="plain")), DiT(SMALL).eval()
    state, width = plain.state_dict(), SMALL.width
    weight, bias = torch.zeros(6, width, width), torch.zeros(6, width)
    weight[[0, 1, 3, 4]] = state["modulation.weight"].view(4, width, width)
    bias[[0, 1, 3, 4]], bias[[2, 5]] = state["modulation.bias"].view(4, width), 1.0
    gated.load_state_dict(
        state | {"modulation.weight": weight.flatten(0, 1), "modulation.bias": bias.flatten()}
    )
    latent, text, timestep = torch.randn(2, 4, 3, 4, 4), torch.randn(2, 5, 20), torch.tensor([5.0, 900])
    with torch.no_grad():
        torch.testing.assert_close(gated(latent, timestep, text), plain(latent, timestep, text))


def test_learned_places_tell_tokens_apart_and_go_beyond_the_table() -> None:
    dit = lively(replace(SMALL, positions="learned", coordinates=False))
    text, timestep = torch.randn(1, 6, 20), torch.tensor([5.0])
    with torch.no_grad():
        out = dit(torch.ones(1, 4, 1, 2, 2 * PLACES + 4), timestep, text)[0, :, 0, ::2, ::2]
        swapped = dit(torch.ones(1, 4, 2, 4, 4), timestep, text)
    assert out[..., : PLACES - 1].std(dim=-1).min() > 1e-3
    torch.testing.assert_close(out[..., -1], out[..., PLACES - 1], rtol=1e-5, atol=1e-5)
    assert swapped[..., ::2, ::2].std(dim=2).max() > 1e-3


def test_conditions_in_context_are_not_padded() -> None:
    dit = lively(IN_CONTEXT)
    with pytest.raises(InputError, match="packed"):
        dit.forward_padded(*clips([(3, 4, 4), (1, 4, 4)]))
    latents, timesteps, texts = clips([(3, 4, 4), (1, 4, 4), (3, 4, 4), (2, 6, 4)])
    with torch.no_grad():
        packed = dit.forward_packed(latents, timesteps, texts, torch.tensor([8.0, 12.0, 16.0, 8.0]))
        for i, clip in enumerate(packed):
            alone = dit(
                latents[i][None],
                timesteps[i][None],
                texts[i][None],
                None,
                torch.tensor([8.0, 12, 16, 8])[i : i + 1],
            )
            torch.testing.assert_close(clip, alone[0], rtol=1e-5, atol=1e-5)


def test_masked_text_changes_nothing() -> None:
    dit = lively(SMALL)
    latent, text = torch.randn(2, 4, 1, 4, 4), torch.randn(2, 6, 20)
    mask = torch.arange(6) < torch.tensor([[2], [6]])
    other = torch.where(mask[..., None], text, 100.0)
    with torch.no_grad():
        out = dit(latent, torch.tensor([5.0, 900]), text, mask)
        assert torch.equal(out, dit(latent, torch.tensor([5.0, 900]), other, mask))
        alone = dit(latent[:1], torch.tensor([5.0]), text[:1, :2])
    torch.testing.assert_close(out[:1], alone, rtol=1e-5, atol=1e-5)


def test_cached_text_equals_text() -> None:
    dit = lively(SMALL)
    latent, text, timestep = torch.randn(2, 4, 3, 4, 4), torch.randn(2, 6, 20), torch.tensor([5.0, 900])
    mask = torch.arange(6) < torch.tensor([[2], [6]])
    with torch.no_grad():
        assert torch.equal(
            dit(latent, timestep, dit.cache_text(text, mask)), dit(latent, timestep, text, mask)
        )


@pytest.mark.parametrize("fps_B", [None, torch.tensor([8.0, 12.0, 16.0, 24.0, 8.0])])
@pytest.mark.parametrize("config", [SMALL, WAN_SMALL, FINAL, ARMS[0], ARMS[2]])
def test_packed_and_padded_equal_clip_by_clip(config: DiTConfig, fps_B: Tensor | None) -> None:
    dit = lively(config)
    latents, timesteps, texts = clips([(3, 4, 4), (1, 4, 4), (3, 4, 4), (2, 6, 4), (3, 4, 6)])
    with torch.no_grad():
        alone = [
            dit(latent[None], timestep[None], text[None], None, None if fps_B is None else fps_B[i : i + 1])[
                0
            ]
            for i, (latent, timestep, text) in enumerate(zip(latents, timesteps, texts, strict=True))
        ]
        for together in (dit.forward_packed, dit.forward_padded):
            for clip, expected in zip(together(latents, timesteps, texts, fps_B), alone, strict=True):
                torch.testing.assert_close(clip, expected, rtol=1e-5, atol=1e-5)


def test_packed_and_padded_have_the_same_gradients() -> None:
    dit = lively(SMALL)
    latents, timesteps, texts = clips([(3, 4, 4), (1, 4, 4), (2, 6, 4)])
    gradients = []
    for together in (dit.forward_packed, dit.forward_padded):
        dit.zero_grad()
        sum(clip.square().mean() for clip in together(latents, timesteps, texts)).backward()
        gradients.append(
            [parameter.grad.clone() for parameter in dit.parameters() if parameter.grad is not None]
        )
    for packed, padded in zip(*gradients, strict=True):
        torch.testing.assert_close(packed, padded, rtol=1e-3, atol=1e-5)


def test_a_final_convolution_is_nothing_at_first_and_then_reaches_the_next_patch_and_frame() -> None:
    """A change of one value of the latent behind the transformer moves what is predicted beside its patch."""
    config = replace(FINAL, patch=(2, 2, 2))
    torch.manual_seed(0)
    fresh, latent = DiT(config), torch.randn(1, 4, 4, 6, 6)
    words = torch.randn(1, 3, 20)
    assert fresh(latent, torch.rand(1, 4) * 1000, words).abs().max() == 0
    dit, blind = lively(config), torch.zeros(1, 4, 4, 6, 6)
    assert dit.final is not None
    condition_FD = torch.randn(2, 48)
    patches_SC = torch.randn(18, 32)
    with torch.no_grad():
        before = dit._prediction(patches_SC, blind, condition_FD)
        after = dit._prediction(patches_SC + torch.eye(18, 1) * 5, blind, condition_FD)
    moved_THW = (before != after).any(1)[0]
    assert moved_THW[:2, :2, :2].all()
    assert moved_THW[2, :3, :3].all()
    assert moved_THW[:2, 2, 2].all()
    assert not moved_THW[:, 4:].any()


def test_latent_frames_lie_at_the_middle_of_their_video_frames() -> None:
    middles = [0.0, 2.5, 6.5, 10.5]  # frame 0; frames 1-4; 5-8; 9-12
    torch.testing.assert_close(latent_times(4, 4, torch.device("cpu")), torch.tensor(middles) / 4)


def test_frame_rate_is_seen_and_defaults_to_the_base_rate() -> None:
    dit = lively(SMALL)
    latent, text, timestep = torch.randn(1, 4, 3, 4, 4), torch.randn(1, 6, 20), torch.tensor([5.0])
    with torch.no_grad():
        default = dit(latent, timestep, text)
        assert torch.equal(dit(latent, timestep, text, None, torch.tensor([8.0])), default)
        assert (dit(latent, timestep, text, None, torch.tensor([24.0])) - default).abs().max() > 1e-3


def test_tokens_know_where_they_are_only_through_coordinates() -> None:
    """On a constant latent RoPE alone gives every token the same prediction; coordinates tell them apart."""
    latent, text, timestep = torch.ones(1, 4, 3, 4, 4), torch.randn(1, 6, 20), torch.tensor([5.0])
    spread = []
    for config in (replace(SMALL, coordinates=False), SMALL):
        with torch.no_grad():
            spread.append(lively(config)(latent, timestep, text)[..., ::2, ::2].std(dim=(2, 3, 4)).mean())
    assert spread[0] < 1e-5
    assert spread[1] > 1e-2


def test_patches_may_span_latent_frames() -> None:
    dit = lively(replace(SMALL, patch=(2, 2, 2)))
    latent, text = torch.randn(2, 4, 4, 4, 4), torch.randn(2, 5, 20)
    with torch.no_grad():
        out = dit(latent, torch.rand(2, 4) * 1000, text)
        packed = dit.forward_packed(list(latent), list(torch.full((2, 4), 3.0)), list(text))
        torch.testing.assert_close(torch.stack(packed), dit(latent, torch.full((2,), 3.0), text))
    assert out.shape == latent.shape


def test_bad_sizes_are_refused() -> None:
    dit = DiT(SMALL)
    for shape in ((1, 5, 1, 4, 4), (1, 4, 1, 3, 4)):
        with pytest.raises(InputError, match="does not fit"):
            dit(torch.randn(shape), torch.zeros(1), torch.randn(1, 2, 20))
    with pytest.raises(InputError, match="heads"):
        replace(SMALL, heads=5)
    with pytest.raises(InputError, match="0 heads"):
        replace(SMALL, heads=0)


@pytest.mark.slow
def test_compiled_equals_eager() -> None:
    dit = lively(SMALL)
    latent, text, timestep = torch.randn(2, 4, 3, 4, 4), torch.randn(2, 6, 20), torch.rand(2, 3) * 1000
    compiled = torch.compile(dit, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(latent, timestep, text), dit(latent, timestep, text))


@pytest.mark.slow
def test_learns_what_and_where_from_a_prompt() -> None:
    """Flow matching of a two-word world, encoder and DiT trained together, then sampled from noise."""
    torch.manual_seed(0)
    words = [(sign, side) for sign in ("red", "blue") for side in ("left", "right", "top", "bottom")]
    prompts = [f"{sign} {side}" for sign, side in words]
    worlds = torch.zeros(len(words), 4, 1, 8, 8)
    halves = {"left": (..., slice(0, 4)), "right": (..., slice(4, 8)), "top": (..., slice(0, 4), slice(None))}
    halves["bottom"] = (..., slice(4, 8), slice(None))
    for world, (sign, side) in zip(worlds, words, strict=True):
        world[halves[side]] = 1.0 if sign == "red" else -1.0
    text = Text(train_tokenizer(prompts, 300), TextEncoder(TextConfig(width=20, heads=1, depth=1, vocab=300)))
    dit = DiT(SMALL)
    optimizer = torch.optim.AdamW([*dit.parameters(), *text.encoder.parameters()], lr=2e-3)
    for _ in range(400):
        which, noise = torch.randint(len(words), (32,)), torch.randn(32, 4, 1, 8, 8)
        sigma = torch.rand(32)
        noisy = torch.lerp(worlds[which], noise, sigma.view(-1, 1, 1, 1, 1))
        velocity = dit(noisy, 1000 * sigma, *text([prompts[i] for i in which]))
        loss = (velocity - (noise - worlds[which])).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        latent, cache = torch.randn(worlds.shape), dit.cache_text(*text(prompts))
        for i in range(8):
            latent = latent - dit(latent, torch.full((len(words),), 1000 * (1 - i / 8)), cache) / 8
    nearest = torch.cdist(latent.flatten(1), worlds.flatten(1)).argmin(1)
    assert nearest.tolist() == list(range(len(words)))
    assert (latent - worlds).square().mean() < 0.1


# Parity with diffusers: our parameter for each of theirs.

WAN_KEYS = {
    "condition_embedder.time_embedder.linear_1": "time_in",
    "condition_embedder.time_embedder.linear_2": "time_out",
    "condition_embedder.time_proj": "modulation",
    "condition_embedder.text_embedder.linear_1": "text.up",
    "condition_embedder.text_embedder.linear_2": "text.down",
    "patch_embedding": "embed",
    "proj_out": "head",
    "attn1": "attention",
    "attn2": "text_attention",
    "to_q": "query",
    "to_k": "key",
    "to_v": "value",
    "to_out.0": "out",
    "norm_q": "query_norm",
    "norm_k": "key_norm",
    "norm2": "text_norm",
    "ffn.net.0.proj": "mlp.up",
    "ffn.net.2": "mlp.down",
    "scale_shift_table": "table",
}


def renamed(key: str) -> str:
    for theirs, ours in WAN_KEYS.items():
        key = key.replace(theirs, ours)
    return key


@pytest.mark.parametrize("shape", [(3, 4, 6), (1, 8, 4)])
def test_equals_diffusers_wan(shape: tuple[int, int, int]) -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    wan = diffusers.WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=24,
        in_channels=4,
        out_channels=4,
        text_dim=20,
        ffn_dim=80,
        num_layers=2,
    ).eval()
    with torch.no_grad():
        for parameter in wan.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    dit = DiT(WAN_SMALL)
    sizes = {key: value.shape for key, value in dit.state_dict().items()}
    weights = {renamed(key): value for key, value in wan.state_dict().items()}
    dit.load_state_dict({key: value.reshape(sizes[key]) for key, value in weights.items()})
    latent, text, timestep = torch.randn(2, 4, *shape), torch.randn(2, 7, 20), torch.tensor([3.0, 981.0])
    with torch.no_grad():
        expected = wan(latent, timestep, text).sample
        assert (dit(latent, timestep, text) - expected).norm() < 1e-5 * expected.norm()
        per_frame = torch.rand(2, shape[0]) * 1000  # they take one timestep per token
        per_token = per_frame.repeat_interleave(shape[1] * shape[2] // 4, dim=1)
        expected = wan(latent, per_token, text).sample
        assert (dit(latent, per_frame, text) - expected).norm() < 1e-5 * expected.norm()
