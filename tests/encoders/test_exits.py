"""An utterance that leaves early has the states of the encoder cut where it left."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core.errors import InputError
from core.spec import ConvFrontEnd, Exits, LayerSpec, ModelSpec, Positions
from encoders import build, cut
from encoders.exits import depths_at, entropy
from encoders.model import Encoder, Hidden, from_state

DEPTH, CLASSES, SAMPLES = 4, 5, 3000
PLAIN = ModelSpec(
    "test", ConvFrontEnd((6, 8), (10, 4), (40, 4), norm="layer"), 24, 4, 6,
    (LayerSpec.dense(4, 6, 10),) * DEPTH, Positions(bias_reach=4),
)  # fmt: skip
PLAINS = (
    PLAIN,
    replace(PLAIN, norm_first=True, positions=Positions(gated_buckets=8, gated_distance=20)),
    replace(PLAIN, positions=Positions(conv_kernel=4, conv_groups=2)),
)
_NOISE = torch.randn(6, SAMPLES, generator=torch.Generator().manual_seed(0))
_PITCHES = torch.tensor([0.02, 0.05, 0.1, 0.3, 0.8, 2.0])[:, None]
WAVEFORMS = torch.sin(_PITCHES * torch.arange(SAMPLES)) + 0.1 * _NOISE
LENGTHS = torch.tensor([3000, 2200, 3000, 1400, 2600, 3000])
WAVEFORMS[torch.arange(SAMPLES) >= LENGTHS[:, None]] = 0


def _encoder(plain: ModelSpec, threshold: float, seed: int = 1) -> Encoder:
    """Its heads are sharp enough for utterances to differ."""
    encoder = build(replace(plain, exits=Exits(CLASSES, threshold)), seed).eval()
    with torch.no_grad():
        for head in encoder.exits:
            head.linear.weight.mul_(6)
    return encoder


def _run(encoder: Encoder, rows: slice = slice(None)) -> Hidden:
    longest = int(LENGTHS[rows].max())
    with torch.no_grad():
        return encoder(WAVEFORMS[rows, :longest], LENGTHS[rows])


def _entropies(encoder: Encoder) -> Tensor:
    """Behind all layers but the last (batch, DEPTH - 1), from a run through all of them."""
    plain = cut.keep_layers(encoder, range(DEPTH)).train()
    hidden = _run(plain)
    pairs = zip(encoder.exits, hidden.states[1:-1], strict=True)
    return torch.stack([entropy(head(state), hidden.lengths) for head, state in pairs], 1).detach()


def _parted(plain: ModelSpec) -> Encoder:
    """An encoder that the utterances leave at three different layers or more."""
    for seed in range(10):
        entropies = _entropies(_encoder(plain, 0.0, seed))
        ranked = entropies.flatten().sort().values
        for threshold in ((ranked[1:] + ranked[:-1]) / 2).tolist():
            if len(set(depths_at(entropies, threshold).tolist())) > 2:
                return _encoder(plain, threshold, seed)
    raise AssertionError("the heads do not part the utterances")


@pytest.mark.parametrize("plain", PLAINS, ids=["bias", "prenorm-gated", "conv"])
def test_states_are_those_of_the_encoder_cut_where_it_left(plain: ModelSpec) -> None:
    encoder = _parted(plain)
    hidden = _run(encoder)
    assert hidden.depths is not None
    assert len(hidden.states) == DEPTH + 1
    for row, depth in enumerate(hidden.depths.tolist()):
        state = {k: v for k, v in encoder.state_dict().items() if not k.startswith("exits.")}
        whole = from_state(plain, state).eval()
        own = slice(row, row + 1)
        expected = _run(cut.keep_layers(whole, range(depth)), own).states
        expected += [expected[-1]] * (DEPTH - depth)
        valid = int(hidden.lengths[row])
        for one, other in zip(hidden.states, expected, strict=True):
            torch.testing.assert_close(one[row, :valid], other[0], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("plain", PLAINS, ids=["bias", "prenorm-gated", "conv"])
def test_a_batch_equals_its_utterances_alone(plain: ModelSpec) -> None:
    encoder = _parted(plain)
    hidden = _run(encoder)
    assert hidden.depths is not None
    for row in range(len(WAVEFORMS)):
        alone = _run(encoder, slice(row, row + 1))
        assert alone.depths is not None
        assert alone.depths.item() == hidden.depths[row]
        for one, other in zip(alone.states, hidden.states, strict=True):
            frames = int(hidden.lengths[row])
            torch.testing.assert_close(one[0], other[row, :frames], atol=2e-5, rtol=1e-4)


def test_who_has_left_is_not_computed() -> None:
    encoder = _parted(PLAIN)
    rows: list[int] = []
    for layer in encoder.layers:
        layer.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    depths = _run(encoder).depths
    assert depths is not None
    assert rows == [int((depths > index).sum()) for index in range(int(depths.max()))]


def test_the_threshold_goes_from_all_layers_to_one() -> None:
    all_layers, one_layer = (
        _run(_encoder(PLAIN, threshold)) for threshold in (0.0, math.log(CLASSES) + 0.01)
    )
    assert all_layers.depths is not None
    assert one_layer.depths is not None
    assert all_layers.depths.tolist() == [DEPTH] * 6
    assert one_layer.depths.tolist() == [1] * 6
    assert all(torch.equal(state, one_layer.states[1]) for state in one_layer.states[2:])
    assert not torch.equal(all_layers.states[1], all_layers.states[2])


def test_all_layers_run_in_training_and_without_exits() -> None:
    encoder = _encoder(PLAIN, math.log(CLASSES) + 0.01)
    plain = build(PLAIN, seed=1)
    plain.load_state_dict(encoder.state_dict(), strict=False)
    trained, expected = _run(encoder.train()), _run(plain.eval())
    assert trained.depths is None
    assert expected.depths is None
    for one, other in zip(trained.states, expected.states, strict=True):
        assert torch.equal(one, other)


def test_a_traced_encoder_runs_everything_and_tells_the_same_depths() -> None:
    encoder = _parted(PLAIN)

    class Outputs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, waveforms: Tensor) -> tuple[Tensor, ...]:
            hidden = self.encoder(waveforms)
            return (*hidden.states, hidden.depths)

    early = 0
    for row in torch.where(LENGTHS == SAMPLES)[0].tolist():
        waveform = WAVEFORMS[row : row + 1]
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            *states, depths = torch.jit.trace(Outputs(), waveform, check_trace=False)(waveform)
            direct = encoder(waveform)
        assert depths.tolist() == direct.depths.tolist()
        early += int(depths < DEPTH)
        same = torch.allclose(states[-1], direct.states[-1], atol=1e-5)
        assert same == (int(depths) == DEPTH)
    assert early


@given(st.integers(1, 6), st.integers(1, 4), st.floats(0.0, 2.0))
def test_depths_count_the_layers_before_the_first_sure_one(
    batch: int, heads: int, threshold: float
) -> None:
    generator = torch.Generator().manual_seed(batch * 10 + heads)
    entropies = 2 * torch.rand(batch, heads, generator=generator)
    depths = depths_at(entropies, threshold).tolist()
    for row, depth in zip(entropies.tolist(), depths, strict=True):
        sure = [index for index, own in enumerate(row) if own < threshold]
        assert depth == (sure[0] + 1 if sure else heads + 1)


def test_entropy_is_the_mean_over_valid_frames_in_nats() -> None:
    sure, torn = torch.tensor([100.0, 0, 0, 0]), torch.zeros(4)
    logits = torch.stack([torch.stack([torn, sure, torn]), torch.stack([sure, torn, torn])])
    found = entropy(torch.cat([logits, logits[:1]]), torch.tensor([3, 1, 0]))
    torch.testing.assert_close(found, torch.tensor([2 / 3 * math.log(4), 0.0, 0.0]))


def test_the_spec_goes_to_json_and_back_and_rebuilds_the_encoder() -> None:
    encoder = _parted(PLAINS[1])
    again = ModelSpec.from_json(json.loads(json.dumps(encoder.spec.to_json())))
    assert again == encoder.spec
    rebuilt = build(again, seed=7).eval()
    rebuilt.load_state_dict(encoder.state_dict(), strict=True)
    one, other = _run(encoder), _run(rebuilt)
    assert all(torch.equal(a, b) for a, b in zip(one.states, other.states, strict=True))
    assert "exits" not in PLAIN.to_json(), "a spec of old is written as it was"


def test_a_cut_keeps_the_exits_of_its_layers() -> None:
    encoder = _encoder(PLAIN, 0.5)
    small = cut.keep_layers(encoder, [0, 2, 3])
    assert small.spec.exits == encoder.spec.exits
    assert len(small.exits) == 2
    assert torch.equal(small.exits[1].linear.weight, encoder.exits[2].linear.weight)
    thin = cut.keep_heads(encoder, [[0]] * DEPTH)
    assert torch.equal(thin.exits[2].linear.weight, encoder.exits[2].linear.weight)


@pytest.mark.parametrize("values", [{"classes": 1}, {"classes": 4, "threshold": -1.0},
                                    {"classes": 4, "threshold": math.nan}])  # fmt: skip
def test_impossible_exits_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected"):
        Exits(**values)  # type: ignore[arg-type]
    with pytest.raises(InputError):
        ModelSpec.from_json(PLAIN.to_json() | {"exits": values})
