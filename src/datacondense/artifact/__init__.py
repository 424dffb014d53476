"""The artifact: a condensed set on disk, its typed record, card and picture."""
