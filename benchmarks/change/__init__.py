"""Change between scans of one person: estimators compared, and the proof of the one shipped."""
