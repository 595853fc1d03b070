"""Heavy work in parts, and where the results of parts are kept."""
