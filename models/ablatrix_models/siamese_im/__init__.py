"""The parts of SiameseIM (Tao et al. 2023), as released; `ablatrix_models.methods.siameseim` puts them together.

Shapes: `grid` patches a side; `patches` = grid * grid, row by row; `tokens` with CLS first; `dim`, the width of projector and decoder.
"""
