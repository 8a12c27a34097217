"""Mamba-2 (arXiv 2405.21060) for one sequence, in operators that backends take."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cobra.export.executorch.form import Form, Piece
from cobra.export.executorch.rewrites import MeanSquareNorm, parts, silu, softplus
from cobra.models.lm.mamba2 import Mamba2Mixer
from cobra.models.lm.state import Buffer


class Mamba2Form(Form):
    """A mixer's function: letters as in the README, and R heads to a group.

    Args:
        mixer: whose weights it computes with.
        tokens: of a piece; with one it steps.
    """

    def __init__(self, mixer: Mamba2Mixer, tokens: int) -> None:
        super().__init__()
        heads, head_dim, d_state = mixer.layout["ssm"].shape
        self.groups, self.heads, self.head_dim, self.d_state = mixer.n_groups, heads, head_dim, d_state
        self.splits, self.scan_splits = mixer.splits, mixer.scan_splits
        filters, bias = mixer.conv1d.filters()
        self.taps = filters.shape[1]
        self.layout = {
            "conv": Buffer((self.taps - 1, filters.shape[0])),
            "ssm": Buffer((self.groups, heads // self.groups * head_dim, d_state), recurrent=True),
        }
        self.in_proj, self.out_proj = mixer.in_proj, mixer.out_proj
        self.filters = nn.ParameterList(f.detach()[None] for f in filters.T.contiguous())  # K of (1, C)
        self.bias = nn.Buffer(torch.zeros(filters.shape[0]) if bias is None else bias.detach())
        self.dt_bias, self.A = nn.Buffer(mixer.dt_bias.detach()), nn.Buffer(-mixer.A_log.detach().exp())
        self.D = nn.Buffer(mixer.D.detach().repeat_interleave(head_dim))
        scale, eps = mixer.norm.scale()
        self.norm = MeanSquareNorm(scale.unflatten(0, (self.groups, -1)), eps)
        self.each = nn.Buffer(torch.ones(1, head_dim))
        # [i, k]: token k is read up to i; [j, k]: it is read after j, or, in the last row, after the past.
        # XNNPACK crashes where a constant is a linear's weight and multiplied elsewhere, too
        self.up_to = nn.Buffer(torch.ones(tokens, tokens).tril())
        self.after = nn.Buffer(torch.cat([torch.ones(tokens, tokens).triu(1), torch.ones(1, tokens)]))

    def forward(self, x: Tensor, memory: list[Tensor], piece: Piece) -> tuple[Tensor, list[Tensor]]:
        """See `Form.forward`."""
        conv, ssm = memory
        z, xBC, dt = parts(self.in_proj(x), self.splits)
        xBC, conv = self._convolve(xBC, conv, piece)
        x, B, C = parts(xBC, self.scan_splits)
        dt = softplus(dt + self.dt_bias)
        if piece.read is not None:
            # a token of no time leaves no trace
            dt = dt * piece.read
        y, ssm = (self._step if len(x) == 1 else self._scan)(x, B, C, dt, ssm)
        gated = (y + x * self.D) * silu(z)
        y = self.norm(gated.reshape(len(x), self.groups, -1)).reshape(len(x), -1)
        return self.out_proj(y), [conv, ssm]

    def _convolve(self, x: Tensor, past: Tensor, piece: Piece) -> tuple[Tensor, Tensor]:
        """Inputs (N, C) behind K - 1 earlier ones (K - 1, C) to outputs, and the last that are read."""
        inputs, y = torch.cat([past, x]), self.bias
        for tap, weight in enumerate(self.filters):
            y = y + inputs[tap : tap + len(x)] * weight
        if piece.read is None:
            return silu(y), inputs[len(x) :]
        last = torch.bmm(piece.windows[self.taps], inputs.reshape(1, *inputs.shape))
        return silu(y), last.reshape(past.shape)

    def _step(self, x: Tensor, B: Tensor, C: Tensor, dt: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One token: S = exp(dt A) S + dt x B^T, y = S C."""
        fed = x.reshape(self.groups, -1, 1) * self._per_channel(dt)  # (G, R P, 1)
        told = fed * B.reshape(self.groups, 1, self.d_state)  # (G, R P, N)
        state = state * self._per_channel(torch.exp(dt * self.A)) + told
        y = torch.bmm(state, C.reshape(self.groups, self.d_state, 1))  # (G, R P, 1)
        return y.reshape(1, -1), state

    def _scan(self, x: Tensor, B: Tensor, C: Tensor, dt: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """A piece as one chunk of the paper's section 6, whose decays are sums and no differences of sums."""
        tokens, groups, heads = len(x), self.groups, self.heads
        rates = (dt * self.A).T  # (H, T)
        # at each token, what is left of each one, and behind those of what stood before the piece
        left = torch.exp(F.linear(rates.reshape(heads, 1, tokens) * self.up_to, self.after))  # (H, T, T + 1)
        within, start = left[..., :tokens] * self.up_to, left[..., tokens:]
        end = left[:, tokens - 1 :, :tokens].reshape(heads, tokens, 1)
        fed = x.reshape(tokens, heads, -1).permute(1, 0, 2) * dt.T.reshape(heads, tokens, 1)  # (H, T, P)
        B, C = (m.reshape(tokens, groups, -1).permute(1, 0, 2) for m in (B, C))  # (G, T, N)
        scores = torch.bmm(C, B.permute(0, 2, 1)).reshape(groups, 1, tokens, tokens)
        weights = (within.reshape(groups, -1, tokens, tokens) * scores).reshape(heads, tokens, tokens)
        past = torch.bmm(C, state.permute(0, 2, 1)).reshape(groups, tokens, -1, self.head_dim)
        y = torch.bmm(weights, fed) + past.permute(0, 2, 1, 3).reshape(heads, tokens, -1) * start
        told = torch.bmm((fed * end).permute(0, 2, 1).reshape(groups, -1, tokens), B)  # (G, R P, N)
        state = state * self._per_channel(start[:, tokens - 1 :]) + told
        return y.permute(1, 0, 2).reshape(tokens, -1), state

    def _per_channel(self, factor: Tensor) -> Tensor:
        """Factors of H heads to those of their channels (G, R P, 1)."""
        return (factor.reshape(self.heads, 1) * self.each).reshape(self.groups, -1, 1)
