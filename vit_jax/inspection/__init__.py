"""Inspection of a trained model: scores, calibration, mistakes, attention, and a report page that shows them."""
