"""Ablation studies of masked siamese self-supervised learning: from sweep file to finished trials."""
