"""Where cases come from: `case` says what one is, `sources.load_data` knows all sources by name."""
