#!/bin/sh
# Run on every node at about the same time, with the same HEAD, one of them: HEAD=node1 sh docs/torchrun.sh
: "${HEAD:?set HEAD to the name of one node}"
exec torchrun --nnodes 2 --nproc-per-node 8 --rdzv-id cobra --rdzv-backend c10d --rdzv-endpoint "$HEAD:29500" \
    -m cobra fit -c configs/cobra_2.8b.yaml \
    --trainer.num_nodes 2 --trainer.devices 8 --stages.0.batch_size 8 \
    --trainer.default_root_dir /shared/runs/cobra_2.8b --ckpt_path auto
