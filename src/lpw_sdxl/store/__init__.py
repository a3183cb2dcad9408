"""The model store, BentoML's or a volume's: entries and publication; not what is in an entry."""
