"""Add-ons in the model store: imported, listed, found by the names users write."""
