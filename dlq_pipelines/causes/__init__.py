"""Why events die: error texts, told apart by their root."""
