"""ResNet-50 in plain torch: fifty layers deep, a BatchNorm after every convolution.

Written from He et al. 2015, "Deep Residual Learning for Image Recognition" (arXiv:1512.03385), table 1, with one change
that has become the standard ("v1.5"): a block that halves the image does so in its 3 x 3 convolution, not in the 1 x 1
before it. Attributes carry torchvision's names, so that its published state dict loads with strict=True.
"""

from torch import nn


def _conv(in_channels, out_channels, kernel_size, stride=1):
    """A convolution that keeps the image's size, divided by stride; without a bias, as BatchNorm has one."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)


class Bottleneck(nn.Module):
    """``relu(residual(x) + x)``: fewer channels (1 x 1), the neighbours (3 x 3), the channels back (1 x 1).

    Shapes: input (N, in_channels, H, W), output (N, 4 * channels, H / stride, W / stride), rounded up.
    The shortcut is x itself where the shapes agree; elsewhere ``downsample``, a 1 x 1 convolution and its
    BatchNorm, gives x the output's shape. Source: section 4.1, figure 5 on the right.
    """

    expansion = 4

    def __init__(self, in_channels, channels, stride=1):
        super().__init__()
        out_channels = self.expansion * channels
        self.conv1 = _conv(in_channels, channels, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 3, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = _conv(channels, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(_conv(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return self.relu(x + shortcut)


class ResNet(nn.Module):
    """A stem, four stages of Bottlenecks (``blocks``: how many in each), the mean over the image's places, one Linear.

    Shapes: images (N, 3, H, W) in, logits (N, num_classes) out. H and W are 224 in the paper; any size will do, but in
    train mode the last BatchNorms need two values per channel: two images, or one of 33 x 33.
    At the start convolutions are normal with std sqrt(2 / fan_out), fan_out = out_channels * kernel_size**2 (He et al.
    2015, "Delving Deep into Rectifiers", eq. 14), BatchNorms are 1 and 0, and fc is as nn.Linear makes it.
    """

    def __init__(self, blocks, num_classes):
        super().__init__()
        self.conv1 = _conv(3, 64, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = _stage(64, 64, blocks[0], stride=1)
        self.layer2 = _stage(256, 128, blocks[1], stride=2)
        self.layer3 = _stage(512, 256, blocks[2], stride=2)
        self.layer4 = _stage(1024, 512, blocks[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2048, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):  # sizes for 224 x 224 images
        x = self.relu(self.bn1(self.conv1(x)))  # (N, 64, 112, 112)
        x = self.maxpool(x)  # (N, 64, 56, 56)
        x = self.layer1(x)  # (N, 256, 56, 56)
        x = self.layer2(x)  # (N, 512, 28, 28)
        x = self.layer3(x)  # (N, 1024, 14, 14)
        x = self.layer4(x)  # (N, 2048, 7, 7)
        x = self.avgpool(x).flatten(1)  # (N, 2048)
        return self.fc(x)


def _stage(in_channels, channels, blocks, stride):
    """The first block changes the shape, the others keep it."""
    first = Bottleneck(in_channels, channels, stride)
    others = [Bottleneck(Bottleneck.expansion * channels, channels) for _ in range(blocks - 1)]
    return nn.Sequential(first, *others)


def resnet50(num_classes=1000):
    """ResNet-50 with freshly drawn weights: 25,557,032 parameters for 1,000 classes.

    Shapes: images (N, 3, H, W) in, logits (N, num_classes) out. It has 53 convolutions and 53 BatchNorms: the name
    counts the 49 convolutions on the main path and fc, not the four of the shortcuts. Draws from torch's global
    generator. torchvision's weights want RGB from 0 to 1, minus .485 .456 .406, divided by .229 .224 .225.
    """
    return ResNet((3, 4, 6, 3), num_classes)
