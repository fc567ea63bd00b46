"""Trains an arm: `fit.fit` from encoded rows to checkpoints, `stage.run` planned and recorded."""
