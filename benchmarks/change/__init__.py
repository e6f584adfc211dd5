"""Change between scans of one person: estimators compared on simulated scans."""
