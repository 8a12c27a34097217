"""Lightning strategy `sharded`: every device keeps a share of each weight, gradient and moment (FSDP2)."""

from pathlib import Path
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before lightning)

import torch  # isort: skip
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

from cobra.train.recipe import check_groups
from cobra.train.sharding import take_moments
from cobra.weights.check_fit import check_fit

# what a yaml calls it
NAME = "sharded"


class FullySharded(ModelParallelStrategy):
    """Shares of all weights on all devices, whatever their number; see `cobra.train.sharding`."""

    def setup_environment(self) -> None:
        """Say how many devices there are, which is known by now."""
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Take the shares of a checkpoint, whatever number of devices wrote it, whole or in shares.

        Raises:
            ValueError: where it is of another model or of other weights that learn.
        """
        path, module = Path(self.broadcast(checkpoint_path)), self.lightning_module
        if path.is_dir():
            return super().load_checkpoint(path, weights_only=weights_only)
        assert module is not None
        held: dict[str, Any] = torch.load(path, mmap=True, map_location="cpu", weights_only=True)
        state = held.pop("state_dict")
        expected = {name: tensor.shape for name, tensor in module.state_dict().items()}
        found = {name: tensor.shape for name, tensor in state.items()}
        check_fit(expected, found, f"{path} is of another model than this yaml")
        set_model_state_dict(module, state, options=StateDictOptions(full_state_dict=True))
        for optimizer, moments in zip(self.optimizers, held["optimizer_states"], strict=False):
            check_groups([moments], optimizer.param_groups, str(path))
            take_moments(optimizer, moments)
        return held


StrategyRegistry.register(NAME, FullySharded, "FSDP2 on all devices")
