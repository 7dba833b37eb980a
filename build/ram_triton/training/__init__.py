"""Training RAM: data and starting weights → the three losses → a published checkpoint."""
