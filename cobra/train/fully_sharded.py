"""Lightning strategy `sharded`: every device keeps a share of each weight, gradient and moment (FSDP2)."""

import cobra.torchvision_shim  # noqa: F401  (before lightning)

from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry  # isort: skip

# what a yaml calls it
NAME = "sharded"


class FullySharded(ModelParallelStrategy):
    """Shares of all weights on all devices, whatever their number; see `cobra.train.sharding`."""

    def setup_environment(self) -> None:
        """Say how many devices there are, which is known by now."""
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()


StrategyRegistry.register(NAME, FullySharded, "FSDP2 on all devices")
