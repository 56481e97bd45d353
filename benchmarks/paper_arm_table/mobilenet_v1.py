"""MobileNet v1 at width 1.0, as its paper describes it; torchvision has versions 2 and 3 only.

Source: Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications"
(arXiv 1704.04861), table 1: 569 million multiply-adds and 4.2 million parameters at 224x224.
"""

from __future__ import annotations

from torch import Tensor, nn

# (output channels, stride) of each depthwise separable block after the stem
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


def _norm_relu(convolution: nn.Conv2d) -> list[nn.Module]:
    return [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU()]


class MobileNetV1(nn.Module):
    """Shapes: images (N, 3, H, W) -> logits (N, num_classes); every size from 32x32 pixels up."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        channels = 32
        modules = _norm_relu(nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False))
        for out, stride in BLOCKS:
            depthwise = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False)
            modules += [*_norm_relu(depthwise), *_norm_relu(nn.Conv2d(channels, out, 1, bias=False))]
            channels = out
        self.features = nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, num_classes)."""
        logits: Tensor = self.classifier(self.features(images))
        return logits
