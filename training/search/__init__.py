"""The search of hyperparameters: space, storage and trials."""
