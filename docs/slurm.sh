#!/bin/bash
# sbatch docs/slurm.sh: two nodes of 8 GPUs, one process a GPU. Two minutes before the time limit the run saves and
# goes back into the queue; what follows goes on from there.
#SBATCH --job-name=cobra
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
srun cobra fit -c configs/cobra_2.8b.yaml \
    --trainer.num_nodes 2 --trainer.devices 8 --stages.0.batch_size 8 \
    --trainer.default_root_dir /shared/runs/cobra_2.8b --ckpt_path auto
