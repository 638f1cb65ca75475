"""Masked siamese self-supervised learning in plain PyTorch; knows nothing of sweeps, Ray or MLflow."""
