"""What a trained model does: scores, calibration, its mistakes, what it attends to, and a page of all of it."""
