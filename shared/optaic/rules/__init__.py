"""The rules that services, worker and client share, each in one place; they read the contracts and nothing else."""
