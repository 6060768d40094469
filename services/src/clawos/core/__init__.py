"""What every room shares: names, config, errors, the bus boundary, streams, processes, logging."""
