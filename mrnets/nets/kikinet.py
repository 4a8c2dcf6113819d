"""KIKI-net, alternating between k-space and image."""

from __future__ import annotations

from torch import nn

from mrnets.blocks.checks import whole
from mrnets.blocks.complex import on_channels
from mrnets.blocks.consistency import replace
from mrnets.blocks.correction import CorrectionUnet
from mrnets.blocks.encoding import encoded
from mrnets.contract import Estimate, Scan
from mrnets.physics.fourier import fftc, ifftc
from mrnets.traits import Traits

__all__ = ["KIKINet"]

TRAITS = Traits(
    task="reconstruction",
    title="KIKI-net, alternating between k-space and image",
    paper="Eo et al., MRM 2018",
    small={"channels": 4},
    aliases={
        "num_iter": "cascades",
        "kspace_unet_num_filters": "channels",
        "kspace_unet_num_pool_layers": "pooling_layers",
        "imspace_unet_num_filters": "channels",
        "imspace_unet_num_pool_layers": "pooling_layers",
    },
    fixed={
        "kspace_model_architecture": "UNET",
        "imspace_model_architecture": "UNET",
        "kspace_unet_dropout_probability": 0.0,
        "kspace_unet_normalize": True,
        "imspace_unet_dropout_probability": 0.0,
        "imspace_unet_normalize": True,
    },
)


class KIKINet(nn.Module):
    """Cascades of a k-space network, data consistency, an image network and data consistency.

    The k-space network sees each coil on its own, the image network the combined image. Every network has its own
    weights. A k-space network gives the k-space itself and an image network a change of its input, as the paper's K-net
    and I-net do. So does the public code of Ramzi et al. (Appl. Sci. 2020). The measured samples replace those of
    either. Both networks are U-Nets here, where the paper has 25 convolutions.
    Raises InputError where the scan lacks k-space, mask or sensitivities.
    """

    def __init__(
        self,
        *,
        cascades: int = 2,
        channels: int = 16,
        pooling_layers: int = 2,
    ) -> None:
        super().__init__()
        whole("cascades", cascades, 1, 64)
        shape = {"channels": channels, "pooling_layers": pooling_layers}
        self.kspace_nets = nn.ModuleList(CorrectionUnet(2, 2, **shape) for _ in range(cascades))
        self.image_nets = nn.ModuleList(CorrectionUnet(2, 2, **shape) for _ in range(cascades))

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        encoding = encoded(scan, self)
        data, mask = encoding.kspace, encoding.mask
        kspace = data * mask
        for kspace_net, image_net in zip(self.kspace_nets, self.image_nets, strict=True):
            kspace = replace(on_channels(kspace_net, kspace), data, mask)
            image = encoding.reduce(ifftc(kspace))
            image = image + on_channels(image_net, image)
            kspace = replace(fftc(encoding.expand(image)), data, mask)
        return encoding.estimate(encoding.reduce(ifftc(kspace)))
