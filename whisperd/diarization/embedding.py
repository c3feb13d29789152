"""The network that turns speech of one person into a vector, close to those of the same voice: CAM++ (arXiv:2303.00332).

A small residual network over time and frequency feeds densely connected layers over time (D-TDNN), each with a mask that
depends on the context: the mean of the whole and of each second. The names of its layers are those of the published weights.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

SIZE = 192
_MELS = 80
_CONTEXT_FRAMES = 100  # after halving the rate: 2 s


class Embedding(nn.Module):
    """The network; `forward` takes filterbanks of shape (pieces, frames, 80) and returns vectors of shape (pieces, 192)."""

    def __init__(self) -> None:
        super().__init__()
        self.head = _Head()
        self.xvector = nn.Sequential(
            OrderedDict(
                tdnn=_Unit(320, 128, 5, stride=2, padding=2),
                block1=_Block(12, 128, dilation=1),
                transit1=_Transit(512, 256),
                block2=_Block(24, 256, dilation=2),
                transit2=_Transit(1024, 512),
                block3=_Block(16, 512, dilation=2),
                transit3=_Transit(1024, 512),
                out_nonlinear=_norm(512),
                stats=_Statistics(),
                dense=_Dense(1024, SIZE),
            )
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """See the class."""
        vectors: torch.Tensor = self.xvector(self.head(features.transpose(1, 2)))
        return vectors


def _norm(channels: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(batchnorm=nn.BatchNorm1d(channels), relu=nn.ReLU()))


class _Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.layer1 = nn.Sequential(_Residual(stride=2), _Residual(stride=1))
        self.layer2 = nn.Sequential(_Residual(stride=2), _Residual(stride=1))
        self.conv2 = nn.Conv2d(32, 32, 3, stride=(2, 1), padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        hidden = functional.relu(self.bn1(self.conv1(features[:, None])))
        hidden = functional.relu(self.bn2(self.conv2(self.layer2(self.layer1(hidden)))))
        return hidden.flatten(1, 2)


class _Residual(nn.Module):
    """Two convolutions and a way around them; the stride is over frequency alone."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(32, 32, 3, stride=(stride, 1), padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(32, 32, 1, stride=(stride, 1), bias=False), nn.BatchNorm2d(32))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = functional.relu(self.bn1(self.conv1(inputs)))
        return functional.relu(self.bn2(self.conv2(hidden)) + self.shortcut(inputs))


class _Unit(nn.Module):
    def __init__(self, channels: int, out: int, taps: int, *, stride: int, padding: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(channels, out, taps, stride=stride, padding=padding, bias=False)
        self.nonlinear = _norm(out)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.nonlinear(self.linear(inputs))
        return hidden


class _Block(nn.Module):
    """Layers of which each gets what all before it made."""

    def __init__(self, layers: int, channels: int, dilation: int) -> None:
        super().__init__()
        for index in range(layers):
            self.add_module(f"tdnnd{index + 1}", _Layer(channels + 32 * index, dilation))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        for layer in self.children():
            inputs = torch.cat([inputs, layer(inputs)], dim=1)
        return inputs


class _Layer(nn.Module):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.nonlinear1 = _norm(channels)
        self.linear1 = nn.Conv1d(channels, 128, 1, bias=False)
        self.nonlinear2 = _norm(128)
        self.cam_layer = _ContextMask(dilation)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.cam_layer(self.nonlinear2(self.linear1(self.nonlinear1(inputs))))
        return hidden


class _ContextMask(nn.Module):
    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.linear_local = nn.Conv1d(128, 32, 3, padding=dilation, dilation=dilation, bias=False)
        self.linear1 = nn.Conv1d(128, 64, 1)
        self.linear2 = nn.Conv1d(64, 32, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        local = functional.avg_pool1d(inputs, _CONTEXT_FRAMES, _CONTEXT_FRAMES, ceil_mode=True)
        context = inputs.mean(dim=-1, keepdim=True) + local
        mask = torch.sigmoid(self.linear2(functional.relu(self.linear1(context))))
        mask = mask.repeat_interleave(_CONTEXT_FRAMES, dim=-1)[..., : inputs.shape[-1]]
        masked: torch.Tensor = self.linear_local(inputs) * mask
        return masked


class _Transit(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.nonlinear = _norm(channels)
        self.linear = nn.Conv1d(channels, out, 1, bias=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.linear(self.nonlinear(inputs))
        return hidden


class _Statistics(nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat([inputs.mean(dim=-1), inputs.std(dim=-1)], dim=-1)


class _Dense(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(channels, out, 1, bias=False)
        self.nonlinear = nn.Sequential(OrderedDict(batchnorm=nn.BatchNorm1d(out, affine=False)))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.nonlinear(self.linear(inputs[..., None])[..., 0])
        return hidden
