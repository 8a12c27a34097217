"""Numbers that are copied to the host while the device goes on."""

import torch
from torch import Tensor

# of other devices a copy is waited for at once
_ASYNCHRONOUS = ("cuda", "xpu")


class OnItsWay:
    """Copies on the host, which nobody waits for before they are needed.

    Args:
        tensors: of one device.
    """

    def __init__(self, *tensors: Tensor) -> None:
        device = tensors[0].device
        goes_on = device.type in _ASYNCHRONOUS
        # into pinned memory
        self._copies = [tensor.to("cpu", non_blocking=goes_on) for tensor in tensors]
        self._event = torch.Event(device) if goes_on else None
        if self._event is not None:
            # by itself an event takes the stream of the current device, which another may be
            self._event.record(torch.accelerator.current_stream(device))

    def are_there(self) -> bool:
        """Whether `arrived` would not wait."""
        return self._event is None or self._event.query()

    def arrived(self) -> list[Tensor]:
        """The copies, once they are there."""
        if self._event is not None:
            self._event.synchronize()
        return self._copies
